"""A connection to a pooler in transaction mode, as PgBouncer: each transaction may meet another server process.

So nothing of ours stays on a connection. What one to the server itself has from its start, a transaction sets for
itself; that goes out in one message with the statement, and costs no round trip. Nothing is prepared, and no start-up
option is sent.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, Self

import psycopg
from psycopg import ClientCursor
from psycopg.sql import Literal

from onelane.errors import ConfigError
from onelane.postgres.connection import SETTINGS, Connection, Row, options_of

SETTING: Final = re.compile(r"(?:-c\s*|--)([A-Za-z_][\w.-]*)=((?:\\.|\S)*)\s*")
"""One of the server's command line; a blank in a value follows a backslash."""
SETTINGS_RESULT: Final = 1
LAST_RESULT: Final = -1
END_READ_ONLY: Final = """
SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())
 WHERE pg_catalog.current_setting('transaction_read_only') = 'on'
"""
"""Whichever server process the pooler gives us now, which need not be the one before."""


class PooledConnection(Connection):
    """A connection that keeps nothing from one transaction to the next."""

    settings: str
    """The statements that begin a transaction. The second tells whether the server takes no writes."""

    @classmethod
    def open(cls, url: str, within_s: float, generation: int) -> Self:
        """Connect to the pooler, or raise psycopg.OperationalError."""
        connection = super().open(url, within_s, generation)
        connection.settings = settings_for(url)
        return connection

    @classmethod
    def access(cls, url: str) -> dict[str, Any]:  # noqa: ARG003 - the address' options are in `settings`
        """Return what libpq is asked for: nothing of a session.

        What the pooler says of the server, as libpq asks for `target_session_attrs`, was true when it first connected.
        """
        return {"prepare_threshold": None, "options": "", "target_session_attrs": "any"}

    def run(self, query: Any, params: Any = None) -> psycopg.Cursor[Row]:
        """Run one statement in a transaction of its own, on a server that takes writes."""
        cursor = self._run(ClientCursor(self).mogrify(query, params))
        cursor.set_result(LAST_RESULT)
        return cursor

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Be inside a transaction, on a server that takes writes."""
        with self.transaction():
            self._run("")
            yield

    def _run(self, statement: str) -> psycopg.Cursor[Row]:
        try:
            return self._run_where_writable(statement)
        except psycopg.errors.ReadOnlySqlTransaction:
            self._end_server_process()
            raise

    def _end_server_process(self) -> None:
        """Have the pooler connect anew: it would keep a connection to a former primary for as long as that is up."""
        with suppress(psycopg.Error):
            self.execute(END_READ_ONLY)

    def _run_where_writable(self, statement: str) -> psycopg.Cursor[Row]:
        cursor = ClientCursor(self)
        cursor.execute((self.settings + statement).encode())
        cursor.set_result(SETTINGS_RESULT)
        row = cursor.fetchone()
        if row is None or row.read_only == "on":
            raise psycopg.errors.ReadOnlySqlTransaction("the server behind the pooler is read-only")
        return cursor


def connector(url: str, pooler: str | None) -> Callable[[float, int], Connection]:
    """Return what opens a connection: to the server itself, or as PG_POOLER says. Raise ConfigError for the address."""
    if pooler is None:
        return partial(Connection.open, url)
    settings_for(url)
    return partial(PooledConnection.open, url)


def settings_for(url: str) -> str:
    """Write the statements that set, for one transaction, what the address or PGOPTIONS asks for, and ours."""
    wanted = {**_asked(options_of(url)), **SETTINGS}
    calls = (f"pg_catalog.set_config({_quoted(name)}, {_quoted(value)}, true)" for name, value in wanted.items())
    return (
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"
        f"SELECT pg_catalog.current_setting('transaction_read_only') AS read_only, concat({', '.join(calls)}) AS set;"
    )


def _asked(options: str) -> dict[str, str]:
    """Read settings from options as PostgreSQL's command line has them."""
    found = SETTING.findall(options)
    if SETTING.sub("", options).strip():
        raise ConfigError("DATABASE_URL: options (or PGOPTIONS) may have only -c name=value with PG_POOLER")
    return {name.replace("-", "_"): re.sub(r"\\(.)", r"\1", value) for name, value in found}


def _quoted(text: str) -> str:
    return Literal(text).as_string()
