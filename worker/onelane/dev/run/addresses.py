"""Whether the servers that the environment names are this bot's.

An address may have been exported for another project, and what is migrated there stays. So a server is used that
holds a deployment of Onelane; any other only after a yes.
"""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import closing

import click

from onelane.config import Settings
from onelane.errors import ConfigError, LanesUnavailable, StoreUnavailable
from onelane.formats import database_of, redis_of
from onelane.keys import INSTANCE
from onelane.lanes.lanes import Lanes
from onelane.lanes.scripts import connect
from onelane.postgres.db import Database

VARIABLES = {"DATABASE_URL": "PostgreSQL", "REDIS_URL": "Redis"}
ANSWER_S = 5.0
IS_OURS = "SELECT to_regclass('deployment') IS NOT NULL AND to_regclass('schema_files') IS NOT NULL AS is_ours"


def named() -> frozenset[str]:
    """Name the servers whose addresses the environment has."""
    return frozenset(name for name in VARIABLES if os.environ.get(name))


def declined(names: frozenset[str], settings: Settings, *, is_wanted: bool) -> frozenset[str]:
    """Name those that are not to be used: no deployment of Onelane is there, and somebody at the terminal says no.

    `is_wanted` is a yes that was given before. Raise ConfigError without a yes and without a terminal.
    """
    return frozenset(
        name
        for name in VARIABLES
        if name in names and not _is_ours(name, settings) and not is_wanted and not _answers_yes(name)
    )


def target_of(name: str) -> str:
    """Return where an address of the environment leads."""
    url = os.environ[name]
    return database_of(url) if name == "DATABASE_URL" else redis_of(url)


def _is_ours(name: str, settings: Settings) -> bool:
    look: Mapping[str, Callable[[Settings], bool]] = {"DATABASE_URL": _is_our_database, "REDIS_URL": _are_our_lanes}
    try:
        return look[name](settings)
    except (StoreUnavailable, LanesUnavailable) as error:
        raise ConfigError(
            f"{name} of the environment, {target_of(name)}: {error}; unset it to use an embedded server"
        ) from error


def _is_our_database(settings: Settings) -> bool:
    with closing(Database(settings.database_url, pooler=settings.pg_pooler, pool_max=1, wait_s=ANSWER_S)) as database:
        row = database.row(IS_OURS)
        return row is not None and bool(row.is_ours)


def _are_our_lanes(settings: Settings) -> bool:
    with closing(
        connect(
            settings.redis_url,
            timeout_s=ANSWER_S,
            wait_s=ANSWER_S,
            connections_max=1,
            verify_tls=settings.redis_tls_verify,
            ca_file=str(settings.redis_tls_ca_file) if settings.redis_tls_ca_file else None,
            prefix=settings.redis_prefix,
        )
    ) as client:
        is_ours = Lanes(client).scripts.ask(lambda: client.type(INSTANCE) == b"hash" and client.hexists(INSTANCE, "id"))
        return bool(is_ours)


def _answers_yes(name: str) -> bool:
    found = f"{name} of the environment leads to {VARIABLES[name]}, {target_of(name)}, where Onelane has never been"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(
            f"{found}: `onelane run --use-environment` (make run ARGS=--use-environment) uses it; "
            f"with {name} unset an embedded server is used"
        )
    click.echo(f"onelane: {found}.", err=True)
    return click.confirm("Set Onelane up there? No uses an embedded server", default=False, err=True)
