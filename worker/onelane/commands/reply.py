"""`onelane reply`: show one reply, send it again, say what became of it, or drop it."""

from typing import Literal, NoReturn, cast
from uuid import UUID

import click

from onelane.bootstrap import Services
from onelane.commands.console import (
    EXIT_FAILED,
    as_json,
    counted,
    format_cell,
    opened,
    print_json,
    print_pairs,
    warn_if_redis_was_away,
    who,
)
from onelane.operations import reply_views
from onelane.operations.acts import Act
from onelane.operations.audit import record
from onelane.operations.reply_views import ReplyRecord, ReplyState

TIMES = ("committed_at", "sending_at", "not_before", "unknown_since", "sent_at", "delivered_at", "read_at", "failed_at")
TIMES_LATER = ("given_up_at", "duplicated_at")
UNKNOWN = frozenset({ReplyState.UNKNOWN, ReplyState.GIVEN_UP})


@click.group()
def reply() -> None:
    """Show one reply, send it again, say what became of it, or drop it.

    `onelane replies` lists them.
    """


@reply.command()
@click.argument("reply_id", type=click.UUID)
@click.option("--text", "with_text", is_flag=True, help="Print what it says too.")
@as_json
def show(reply_id: UUID, with_text: bool, is_json: bool) -> None:
    """Show what became of a reply, without what it says."""
    with opened() as services:
        one = _found(services, reply_id)
        says = reply_views.content(services.database, reply_id) if with_text else {}
        if with_text:
            record(services.database, who(), "text_shown", one.user_id, {"message_id": reply_id})
    if is_json:
        print_json({**one.model_dump(mode="json"), **says})
        return
    print_pairs(_pairs(one))
    for name, value in says.items():
        click.echo(f"\n{name}:\n{value}")


@reply.command()
@click.argument("reply_id", type=click.UUID)
@click.option("--yes", is_flag=True, help="Do not ask, also where it may arrive twice.")
@as_json
def resend(reply_id: UUID, yes: bool, is_json: bool) -> None:
    """Send a reply that failed, was dropped or withheld, or of which nobody knows.

    It goes out before all that was said after it and still waits. Where nobody knows, it may arrive twice.
    """
    with opened() as services:
        one = _found(services, reply_id)
        if one.state in UNKNOWN and not yes:
            click.confirm("Nobody knows whether it arrived: it may arrive twice. Send it again", abort=True, err=True)
        act = services.reply_acts.resend(reply_id, by=who())
    _print(one, act, "waits to be sent", "is on its way, or has arrived", is_json=is_json)


@reply.command()
@click.argument("reply_id", type=click.UUID)
@click.argument("state", type=click.Choice(["sent", "failed"]))
@as_json
def settle(reply_id: UUID, state: str, is_json: bool) -> None:
    """Say what became of a reply of which nobody knows: sent or failed.

    Of a failed one the bot is told, as of any other.
    """
    with opened() as services:
        one = _found(services, reply_id)
        act = services.reply_acts.settle(reply_id, cast(Literal["sent", "failed"], state), by=who())
    _print(one, act, f"is {state}", "is not one of which nobody knows", is_json=is_json)


@reply.command()
@click.argument("reply_id", type=click.UUID)
@as_json
def drop(reply_id: UUID, is_json: bool) -> None:
    """Send a reply no more that waits, or of which nobody knows."""
    with opened() as services:
        one = _found(services, reply_id)
        act = services.reply_acts.drop(reply_id, by=who())
    _print(one, act, "is dropped", "does not wait, or is being sent", is_json=is_json)


def _found(services: Services, reply_id: UUID) -> ReplyRecord:
    one = reply_views.reply(services.database, reply_id)
    if one is None:
        _fail_unknown(reply_id)
    return one


def _fail_unknown(reply_id: UUID) -> NoReturn:
    raise click.ClickException(f"there is no reply {reply_id}: see onelane replies")


def _print(one: ReplyRecord, act: Act, done: str, nothing: str, *, is_json: bool) -> None:
    if is_json:
        print_json({"reply_id": one.reply_id, "state_before": one.state, **act.model_dump()})
    elif act.did:
        click.echo(f"reply {one.reply_id} {done}")
    else:
        click.echo(f"reply {one.reply_id} {nothing}: it is {one.state}; see onelane reply show", err=True)
    if not is_json:
        warn_if_redis_was_away([act])
    if not act.did:
        click.get_current_context().exit(EXIT_FAILED)


def _pairs(one: ReplyRecord) -> list[tuple[str, str]]:
    times = [(name, getattr(one, name)) for name in (*TIMES, *TIMES_LATER)]
    return [
        ("reply", str(one.reply_id)),
        ("user", str(one.user_id)),
        ("session", format_cell(one.session_id)),
        ("channel", one.channel),
        ("answers", f"message {one.seq}, reply {one.ordinal}"),
        ("state", f"{one.state}, after {counted(one.requests, 'request')}{', sent again' if one.resent else ''}"),
        *([("why", one.why)] if one.why else []),
        *([("provider's id", one.provider_id)] if one.provider_id else []),
        *((name.removesuffix("_at").replace("_", " "), format_cell(at)) for name, at in times if at is not None),
    ]
