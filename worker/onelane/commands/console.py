"""What the commands that read and act have in common: their connections, their options, their output."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import click
import psycopg
from pydantic import BaseModel

from onelane import users
from onelane.bootstrap import Services, open_services, refuse_foreign_lanes
from onelane.config import Settings
from onelane.errors import StoreUnavailable
from onelane.model import uuid_or_none
from onelane.operations.acts import Act, Redriven
from onelane.operations.merging import Merged
from onelane.operations.users import UserRecord, find_user, user_of_session
from onelane.postgres.faults import misfit
from onelane.sources import ALL, without_channels
from onelane.telemetry.log import configure

REDIS_TIMEOUT_S = 3.0
EXIT_FAILED = 1
REDIS_AWAY = "Redis is away: done in Postgres; the workers update Redis when it is back"

as_json = click.option("--json", "is_json", is_flag=True, help="Print JSON.")
limited = click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="The most rows to show."
)


class Alias(NamedTuple):
    """An identifier of a user, as a provider knows it."""

    channel: str
    name: str


Named = UUID | Alias
"""What a command gets of a user: an id, or a name, which it must not print."""


class UserName(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """A user, given by id or as `channel:name` with any identifier of theirs; some commands take a session's id too."""

    name = "user"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Named:
        """Return the user's id or name. A refusal does not repeat the value, since it may be somebody's number."""
        if (user_id := uuid_or_none(value)) is not None:
            return user_id
        channel, _, name = value.partition(":")
        if not (channel and name):
            self.fail("must be a user's id (a UUID) or channel:name, for example demo:alice", param, ctx)
        return Alias(channel, name)


USER = UserName()


@contextmanager
def opened(*, on_any_redis: bool = False) -> Iterator[Services]:
    """Connect to what the environment names, else to the `onelane run` of this folder.

    Raise LanesForeign when another deployment uses that Redis, unless the command works `on_any_redis`; StoreDenied for
    a database that is not of this release.
    """
    _use_the_run_of_this_folder()
    settings = Settings.from_environment()
    # The commands print what happens, and what went wrong; log lines would come between.
    configure("CRITICAL", settings.log_format)
    services = open_services(settings, redis_timeout_s=REDIS_TIMEOUT_S)
    try:
        if not on_any_redis:
            refuse_foreign_lanes(services.lanes)
        yield services
    except (psycopg.Error, StoreUnavailable) as error:
        if (denied := misfit(error)) is None:
            raise
        raise denied from error
    finally:
        services.close()


def _use_the_run_of_this_folder() -> None:
    """Take its addresses where the environment names none, or such as it has declined."""
    is_named = os.environ.get("DATABASE_URL") or os.environ.get("REDIS_URL")
    if is_named and not _may_be_a_run():
        return
    from onelane.dev.embedded.postgres import without_libpq
    from onelane.dev.run.data_folder import DataFolder

    found = DataFolder.of_environment().instead(os.environ)
    if "DATABASE_URL" in found:
        _keep(without_libpq(os.environ))
    if ALL in found:  # the run has published those of all sources
        _keep(without_channels(os.environ))
    os.environ.update(found)


def _keep(kept: Mapping[str, str]) -> None:
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]


def _may_be_a_run() -> bool:
    """Answer whether an `onelane run` may be at work here. Production has none, and imports no `dev`."""
    chosen = os.environ.get("ONELANE_DATA")
    folders = (
        [Path(chosen).expanduser()] if chosen else [above / ".onelane" for above in (Path.cwd(), *Path.cwd().parents)]
    )
    return any((folder / "run.json").exists() for folder in folders)


def who() -> str:
    """Return who acts: the name given with --as, else the one that the operating system knows."""
    named: str | None = click.get_current_context().find_root().params.get("acts_as")
    try:
        return named or getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def user_of(services: Services, user: Named) -> UserRecord:
    """Find the user, or end the command with what to do."""
    user_id = users.user_of(services.database, *user) if isinstance(user, Alias) else user
    record = find_user(services.database, user_id) if user_id else None
    if record is None:
        raise click.ClickException("there is no such user: nobody has written yet under that id, or under that name")
    return record


def user_or_owner(services: Services, user: Named) -> UserRecord:
    """Find the user, or the owner of the session with this id."""
    owner = user_of_session(services.database, user) if isinstance(user, UUID) else None
    return user_of(services, owner or user)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(_plain(value), indent=2))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns as wide as they need; nothing when there are none."""
    if not rows:
        return
    cells = [list(headers), *([format_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    for row in cells:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print pairs of a name and a value, one a line."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        click.echo(f"{name.ljust(width)}  {value}")


def counted(count: int, noun: str) -> str:
    """Format a number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_cell(value: object) -> str:
    """Format a value of a table."""
    if value is None:
        return "-"
    return format_instant(value) if isinstance(value, datetime) else str(value)


def format_instant(when: datetime) -> str:
    """Format an instant, in UTC."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def format_duration(seconds: float | None) -> str:
    """Format a length of time: seconds, or minutes, or hours and minutes."""
    if seconds is None:
        return "-"
    if seconds < 120:  # noqa: PLR2004 - two minutes: below, tenths of a second matter
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004


def warn_if_redis_was_away(acts: Sequence[Act | Redriven | Merged]) -> None:
    """Print that the workers have to update Redis, if an act did not reach it."""
    if not all(act.redis for act in acts):
        click.echo(REDIS_AWAY, err=True)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, UUID) else value
