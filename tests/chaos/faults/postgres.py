"""Faults in which Postgres runs and answers, and yet cannot be used: read-only, full, or with something locked."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.chaos.faults.strike import ANSWERS_S, Steps, Strike
from tests.chaos.service import full_disk

ADMINISTRATOR = f"-c default_transaction_read_only=off -c statement_timeout={ANSWERS_S * 1000:.0f}"
SHARES = (0.3, 1.0, 1.0)
READ_ONLY_SERVER = (
    "ALTER SYSTEM SET default_transaction_read_only = on",
    "SELECT pg_reload_conf()",
)
WRITABLE_SERVER = (
    "ALTER SYSTEM RESET default_transaction_read_only",
    "SELECT pg_reload_conf()",
)
READ_ONLY_SESSIONS = (
    "ALTER DATABASE postgres SET default_transaction_read_only = on",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'onelane'",
)
WRITABLE_SESSIONS = ("ALTER DATABASE postgres RESET default_transaction_read_only",)
BUSY_USER = """
SELECT id::text FROM users WHERE channel = 'demo' ORDER BY last_seq DESC LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
"""


def read_only(strike: Strike) -> Steps:
    """Answer every write with 25006: in all sessions until it is over, or for good in those that are made meanwhile.

    The second is what pooled connections meet that lead to an old primary after a fail-over.
    """
    is_whole = strike.target.endswith("/server")
    with _administrator(strike) as connection:
        _run(connection, READ_ONLY_SERVER if is_whole else READ_ONLY_SESSIONS)
    try:
        yield from strike.lasting()
    finally:
        with _administrator(strike) as connection:
            _run(connection, WRITABLE_SERVER if is_whole else WRITABLE_SESSIONS)


def full(strike: Strike) -> Steps:
    """Answer inserts with 53100, all or some of them."""
    with _administrator(strike) as connection:
        full_disk.fill(connection, strike.dice.choice(SHARES))
    try:
        yield from strike.lasting()
    finally:
        with _administrator(strike) as connection:
            full_disk.clear(connection)


def lock_row(strike: Strike) -> Steps:
    """Hold the row of a busy user, as somebody's forgotten transaction does."""
    with _administrator(strike) as connection:
        connection.execute("BEGIN")
        found = connection.execute(BUSY_USER).fetchall()
        strike.is_missed = not found
        for [user_id] in found:
            strike.user_id = user_id
            yield from strike.lasting()
        yield


def lock_table(strike: Strike) -> Steps:
    """Hold the table of tool outputs, as a careless migration does: only handlers that read it notice."""
    with _administrator(strike) as connection:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE tool_calls")
        yield from strike.lasting()


@contextmanager
def _administrator(strike: Strike) -> Iterator[psycopg.Connection]:
    """Connect straight to the server; leaving the block never waits for it."""
    url = strike.stack.postgres.url
    connection = psycopg.connect(url, autocommit=True, connect_timeout=int(ANSWERS_S), options=ADMINISTRATOR)
    try:
        yield connection
    finally:
        connection.close()


def _run(connection: psycopg.Connection, statements: tuple[str, ...]) -> None:
    for statement in statements:
        connection.execute(statement)
