"""One connection to Postgres: how it is opened, what it reports beside its answers, and how it is cut."""

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Timer
from typing import Any, Final, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row
from psycopg.types.json import set_json_loads

from onelane import forks
from onelane.periodic import Periodic
from onelane.postgres.faults import POOLER
from onelane.postgres.places import places_of

Row = Any
"""A named tuple: the row's columns are its attributes."""
NOTICE_SQLSTATE: Final = "OL001"
"""The SQLSTATE of notices that are for us: the message is a name, the detail JSON."""
CONNECT_S_MIN: Final = 2
"""What libpq takes for less."""
STATEMENT_TIMEOUT_S: Final = 5
SETTINGS: Final = {
    "client_min_messages": "notice",
    "enable_seqscan": "off",
    "idle_in_transaction_session_timeout": "3s",
    "lock_timeout": "2s",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
    "synchronous_commit": "on",
}
"""What every transaction of ours has.

Plans are kept, and tables grow: none that was made while a table had one page may read all of it later. The last is
what a 2xx promises, whatever the database's own default is.
"""
ISOLATION_OPTION: Final = r"-c default_transaction_isolation=read\ committed"
"""What the SQL is written for."""
ALL_IN_USE: Final = "all connections that it allows are in use"
DENIALS: Final = {
    "unsupported startup parameter|command-line options": POOLER,
    "certificate verify failed": "its certificate is not trusted: name whom to trust by sslrootcert in DATABASE_URL",
    "does not match host name": "its certificate is for another host than that in DATABASE_URL",
    "root certificate file": "there is no file to verify its certificate by: name it by sslrootcert in DATABASE_URL",
    "does not support SSL": "it speaks no TLS, which sslmode in DATABASE_URL (or PGSSLMODE) asks for",
    "authentication failed|no password supplied": "it refuses the user or the password in DATABASE_URL",
    'role ".*" does not exist|is not permitted to log in|no such user': "it has no such user that may log in as"
    " DATABASE_URL names",
    'database ".*" does not exist|no such database': "it has no such database as DATABASE_URL names: create it, or"
    " correct the name",
    "permission denied for database": "the user in DATABASE_URL may not connect to the database: GRANT CONNECT",
    r"no pg_hba\.conf entry": "it lets nobody in from here as DATABASE_URL asks: check user, database and sslmode"
    " in it, or add a line to the server's pg_hba.conf",
}
"""What only another DATABASE_URL mends."""
REFUSALS: Final = DENIALS | {
    "too many ": ALL_IN_USE,
    "connection slots|no more connections allowed": ALL_IN_USE,
    "read-only": "it is read-only: a replica, or a primary that takes no writes",
    "no name server": "no name server answers where its host is",
}
"""Parts of what libpq or the server says, as patterns, and our sentence instead: theirs name hosts and users.

An error of connecting has no SQLSTATE. A server that speaks another language is taken for one that is away.
"""


class Connection(psycopg.Connection[Row]):
    """A connection that keeps the notices meant for us until their call has succeeded: then they are true."""

    kept_notices: list[tuple[str, str]]
    generation: int
    """What the pool's generation was when it was made."""
    made_at: float
    used_at: float
    """On the monotonic clock."""

    @classmethod
    def open(cls, url: str, within_s: float, generation: int) -> Self:
        """Connect to a server that takes writes, or raise psycopg.OperationalError."""
        with forks.making_a_connection():
            connection = cls.reach(
                url,
                within_s,
                autocommit=True,
                row_factory=namedtuple_row,
                application_name="onelane",
                keepalives_idle=30,
                tcp_user_timeout=10_000,
                **cls.access(url),
            )
            forks.keep_from_children(connection)
        if not (connection.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
            # PGDATESTYLE, or the database's own: the driver reads no other.
            connection.set_up("SET DateStyle = ISO", within_s)
        connection.generation = generation
        connection.made_at = connection.used_at = time.monotonic()
        connection.kept_notices = []
        connection.add_notice_handler(connection.keep_notice)
        set_json_loads(_json, connection)
        return connection

    @classmethod
    def reach(cls, url: str, within_s: float, **options: Any) -> Self:
        """Connect within so many seconds, whatever is waited for, or raise psycopg.OperationalError.

        The driver looks up hosts without a deadline, and gives each address the whole time: here they share it.
        """
        ends, places = time.monotonic() + within_s, places_of(url, within_s)
        failures: list[str] = []
        for place, others in zip(places, range(len(places), 0, -1), strict=True):
            left_s = ends - time.monotonic()
            if failures and left_s <= 0:
                break
            try:
                share_s = max(CONNECT_S_MIN, round(left_s / others))
                return cls.connect(url, **place, client_encoding="UTF8", connect_timeout=share_s, **options)
            except psycopg.OperationalError as error:
                failures.append(str(error))
        raise psycopg.OperationalError("\n".join(failures))

    @classmethod
    def access(cls, url: str) -> dict[str, Any]:
        """Return what libpq is asked for: a server that takes writes, and what the session has from its start."""
        return {"prepare_threshold": 0, "options": session_options(url), "target_session_attrs": "read-write"}

    def set_up(self, statement: str, within_s: float) -> None:
        """Run a statement of ours that comes before all others; without an answer in time the connection is cut."""
        cut = Timer(within_s, self.cut)
        cut.start()
        try:
            self.execute(statement)
        except psycopg.Error:
            self.close()
            raise
        finally:
            cut.cancel()

    def run(self, query: Any, params: Any = None) -> psycopg.Cursor[Row]:
        """Run one statement in a transaction of its own."""
        return self.execute(query, params)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Be inside a transaction."""
        with self.transaction():
            yield

    @property
    def is_idle(self) -> bool:
        """Whether it works, and nothing runs on it."""
        return self.info.transaction_status is TransactionStatus.IDLE

    def keep_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """Keep a notice if it is for us."""
        if notice.sqlstate == NOTICE_SQLSTATE:
            self.kept_notices.append((notice.message_primary or "", notice.message_detail or "{}"))

    def cut(self) -> None:
        """Shut the socket down, so that the thread that waits on it sees its end."""
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self.fileno())) as wire,
        ):  # or closed meanwhile
            wire.shutdown(socket.SHUT_RDWR)


class Watchdog:
    """Cuts connections that wait longer than their deadline.

    No server-side time-out helps when the server is gone behind a proxy that stays up: only our own clock does.
    """

    def __init__(self, *, tick_s: float = 0.5) -> None:
        self._waiting: dict[Connection, float | None] = {}
        """When each connection's deadline is; None: it was cut."""
        self._changing = Lock()
        """Guards that: no connection is cut that has gone back to the pool, to be lent to another."""
        self._rounds = Periodic("db-watchdog", self._cut_overdue, tick_s)
        self._rounds.start()

    def watch(self, connection: Connection, seconds: float) -> None:
        """Cut `connection` unless it is released within `seconds`."""
        with self._changing:
            self._waiting[connection] = time.monotonic() + seconds

    def release(self, connection: Connection) -> bool:
        """Let `connection` wait as long as it likes; return whether it was cut."""
        with self._changing:
            return self._waiting.pop(connection) is None

    def stop(self) -> None:
        """Watch no more."""
        self._rounds.stop()

    def _cut_overdue(self) -> None:
        now = time.monotonic()
        with self._changing:
            for connection, ends in self._waiting.items():
                if ends is not None and ends < now:
                    connection.cut()
                    self._waiting[connection] = None


def options_of(url: str) -> str:
    """Return what the address asks for, or PGOPTIONS, a search_path for one."""
    return str(conninfo_to_dict(url).get("options") or os.environ.get("PGOPTIONS", ""))


def session_options(url: str) -> str:
    """Return what is asked for; behind it ours, since the last counts."""
    ours = (f"-c {name}={value}" for name, value in SETTINGS.items())
    return " ".join([options_of(url), *ours, ISOLATION_OPTION]).lstrip()


def refusal_of(error: Exception) -> str:
    """Explain why Postgres refused a connection, without repeating what it said."""
    text = str(error)
    return next((sentence for part, sentence in REFUSALS.items() if re.search(part, text)), "it cannot be reached")


def _json(text: str | bytes) -> Any:
    """Parse JSON; most states and attachments are empty."""
    if text == b"{}":
        return {}
    return [] if text == b"[]" else json.loads(text)
