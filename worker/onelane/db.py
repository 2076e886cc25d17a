"""Postgres: a small pool, calls that are safe to repeat, and a deadline for each.

Every call is one statement in autocommit, most of them one SQL function. All of them may run twice (a lost reply
leaves it open whether they ran), so a call whose connection broke is tried once more on a fresh one.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import dup
from typing import Any, Self

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import set_json_loads
from psycopg_pool import ConnectionPool, PoolTimeout

from onelane import forks
from onelane.errors import StoreUnavailable
from onelane.faults import is_outage
from onelane.periodic import Periodic

Params = Sequence[Any] | Mapping[str, Any] | None
Row = Any
"""A named tuple: the row's columns are its attributes."""

NOTICE_SQLSTATE = "OL001"
"""The SQLSTATE of notices that are for us: the message is a name, the detail JSON."""
OnNotice = Callable[[str, str], None]
REFUSALS = {
    "certificate verify failed": "its certificate is not trusted: name whom to trust by sslrootcert in DATABASE_URL",
    "does not match host name": "its certificate is for another host than that in DATABASE_URL",
    "root certificate file": "there is no file to verify its certificate by: name it by sslrootcert in DATABASE_URL",
    "does not support SSL": "it speaks no TLS, which sslmode in DATABASE_URL (or PGSSLMODE) asks for",
    "authentication failed": "it refuses the user or the password in DATABASE_URL",
    "too many ": "all connections that it allows are in use",
    "connection slots": "all connections that it allows are in use",
}
"""Parts of what libpq or the server says, and our sentence instead: theirs name hosts and users."""
SESSION_OPTIONS = (
    "-c client_min_messages=notice"
    " -c idle_in_transaction_session_timeout=3000 -c lock_timeout=4000 -c statement_timeout=5000"
)


class Database:
    """A pool of connections to one database."""

    def __init__(
        self,
        url: str,
        *,
        pool_max: int = 8,
        deadline_s: float = 10,
        wait_s: float = 2,
        on_notice: OnNotice = lambda _name, _detail: None,
    ) -> None:
        """Prepare a pool of at most `pool_max` connections; nothing connects before it is needed.

        A call without an answer for `deadline_s`, or without a connection for `wait_s`, raises StoreUnavailable.
        `on_notice` gets the name and the JSON of what SQL functions report beside their answer, once the call has
        succeeded.
        """
        self._deadline_s = deadline_s
        self._on_notice = on_notice
        self._watchdog = _Watchdog()
        self._refusal: str | None = None
        self._pool = ConnectionPool(
            url,
            connection_class=Connection,
            min_size=0,
            max_size=pool_max,
            timeout=wait_s,
            reconnect_timeout=5,
            open=True,
            name="onelane",
            kwargs={
                "on_connect": self._note_refusal,
                "autocommit": True,
                "row_factory": namedtuple_row,
                "options": SESSION_OPTIONS,
                "application_name": "onelane",
                "connect_timeout": 5,
                "keepalives_idle": 30,
                "tcp_user_timeout": 10_000,
                "prepare_threshold": 0,
            },
        )

    def row(self, query: str, params: Params = None) -> Row | None:
        """Run one statement and return its first row, or None when there is none."""
        rows = self.rows(query, params)
        return rows[0] if rows else None

    def rows(self, query: str, params: Params = None) -> list[Row]:
        """Run one statement, safe to repeat, and return its rows."""
        try:
            return self._once(query, params)
        except psycopg.OperationalError as error:
            if not is_outage(error.sqlstate):
                raise
            self._pool.check()
        try:
            return self._once(query, params)
        except psycopg.OperationalError as error:
            raise StoreUnavailable(f"Postgres did not answer: {type(error).__name__}") from error

    def ping(self) -> None:
        """Raise StoreUnavailable unless Postgres answers."""
        self.rows("SELECT 1")

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Row]]:
        """Lend a connection inside a transaction, for migrations and diagnostics; never for a turn."""
        try:
            with self._connection() as connection, connection.transaction():
                yield connection
        except psycopg.OperationalError as error:
            raise StoreUnavailable(f"Postgres did not answer: {type(error).__name__}") from error

    def close(self) -> None:
        """Give all connections back."""
        self._pool.close()
        self._watchdog.stop()

    def _once(self, query: str, params: Params) -> list[Row]:
        with self._connection() as connection:
            connection.kept_notices.clear()
            self._watchdog.watch(connection, self._deadline_s)
            try:
                cursor = connection.execute(query, params)
            finally:
                self._watchdog.release(connection)
            rows = cursor.fetchall() if cursor.rownumber is not None else []
            notices = connection.kept_notices.copy()
        for name, detail in notices:
            self._on_notice(name, detail)
        return rows

    def _note_refusal(self, error: psycopg.Error | None) -> None:
        self._refusal = _refusal_of(error) if error else None

    @contextmanager
    def _connection(self) -> Iterator["Connection"]:
        try:
            connection = self._pool.getconn()
        except PoolTimeout as error:
            why = self._refusal or "the pool is used up, or it does not answer"
            raise StoreUnavailable(f"no connection to Postgres: {why}") from error
        try:
            yield connection
        finally:
            self._pool.putconn(connection)


class Connection(psycopg.Connection[Row]):
    """A connection that keeps the notices meant for us until their call has succeeded: then they are true."""

    kept_notices: list[tuple[str, str]]

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """Connect. `on_connect` gets the error or None: the pool itself tries again without a word."""
        on_connect: Callable[[psycopg.Error | None], None] = options.pop("on_connect")
        try:
            connection = super().connect(conninfo, **options)
        except psycopg.Error as error:
            on_connect(error)
            raise
        on_connect(None)
        forks.keep_from_children(connection)
        connection.kept_notices = []
        connection.add_notice_handler(connection.keep_notice)
        set_json_loads(_json, connection)
        return connection

    def keep_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """Keep a notice if it is for us."""
        if notice.sqlstate == NOTICE_SQLSTATE:
            self.kept_notices.append((notice.message_primary or "", notice.message_detail or "{}"))


def _refusal_of(error: Exception) -> str:
    """Explain why Postgres refused a connection, without repeating what it said."""
    text = str(error)
    return next((sentence for part, sentence in REFUSALS.items() if part in text), "it cannot be reached")


def _json(text: str | bytes) -> Any:
    """Parse JSON; most states and attachments are empty."""
    if text == b"{}":
        return {}
    return [] if text == b"[]" else json.loads(text)


class _Watchdog:
    """Cuts connections that wait longer than their deadline.

    No server-side time-out helps when the server is gone behind a proxy that stays up: only our own clock does.
    """

    def __init__(self, *, tick_s: float = 0.5) -> None:
        self._waiting: dict[psycopg.Connection[Row], float] = {}
        """When each connection's deadline is. Written by its user alone; the watch reads a copy."""
        self._rounds = Periodic("db-watchdog", self._cut_overdue, tick_s)
        self._rounds.start()

    def watch(self, connection: psycopg.Connection[Row], seconds: float) -> None:
        """Cut `connection` unless it is released within `seconds`."""
        self._waiting[connection] = time.monotonic() + seconds

    def release(self, connection: psycopg.Connection[Row]) -> None:
        """Let `connection` wait as long as it likes."""
        del self._waiting[connection]

    def stop(self) -> None:
        self._rounds.stop()

    def _cut_overdue(self) -> None:
        now = time.monotonic()
        for connection, ends in list(self._waiting.items()):
            if ends < now:
                _cut(connection)


def _cut(connection: psycopg.Connection[Row]) -> None:
    """Shut the connection's socket down, so that the thread that waits on it sees its end."""
    try:
        with socket.socket(fileno=dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        return  # closed in the meantime


Clock = Callable[[], Any]
"""Answers the time of acceptance, or None for the database's clock, which is the rule."""


def database_clock() -> None:
    """Leave the time to the database."""
