"""Brings a database to this release: numbered migrations once, functions and views whenever their text changed.

Safe to run concurrently and to kill: each step is one transaction, which finds out what is pending, applies it and
records it. Each migration is a step; functions and views go in together, so that no call meets half of a release. One
step is taken at a time, by an advisory lock that the transaction holds, since a session's would not hold behind a
pooler; it is polled (a blocking wait would deadlock with CREATE INDEX CONCURRENTLY). None waits long for a table:
behind one that waits, all that use the table would wait too.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg

from onelane.errors import StoreDenied, StoreUnavailable
from onelane.postgres.connection import DENIALS, Connection, Watchdog, refusal_of
from onelane.postgres.db import Database
from onelane.postgres.pooled import connector

PACKAGE = Path(__file__).resolve().parents[1]
SQL = next((folder for folder in (PACKAGE / "sql", PACKAGE.parents[1] / "sql") if folder.is_dir()), PACKAGE / "sql")
"""In a wheel inside the package, in a checkout beside it."""
CODE = ("functions", "views")
GUARD = 7_264_011_930
GUARD_WAIT_MAX_S = 120
GUARD_PAUSE_S = 0.1
LOCK_WAIT_MS = 2_000
LOCK_PAUSE_S = 1.0
"""Between two tries, whoever was held up goes on."""
LOCK_TRIES = 30
OTHER_SHAPE = (psycopg.errors.InvalidFunctionDefinition, psycopg.errors.InvalidTableDefinition)
"""Replacing a function keeps its result, replacing a view its columns."""
RUN_MAX_S = 3_600
"""What one step may take, however large the tables are."""
ANSWER_MAX_S = 15
"""The same for what changes no table. Who takes longer is cut off: a link may go silent, which only our clock notices.
"""
PENDING_S = 5.0
"""For the few rows that tell what is pending: /readyz asks, and load balancers do not wait long."""
TERMS = """
SET LOCAL lock_timeout = {lock_wait_ms};
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = '60s';
SET LOCAL check_function_bodies = off
"""
"""Functions may name each other, and tables of a later file, in any order."""
Watch = Callable[[], object]
"""Gives what comes next a deadline."""

FILES_TABLE = """
CREATE TABLE IF NOT EXISTS schema_files (
    name       text PRIMARY KEY,
    digest     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
RECORD = """
INSERT INTO schema_files (name, digest) VALUES (%s, %s)
ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, applied_at = clock_timestamp()
"""


def migrate(
    url: str,
    *,
    pooler: str | None = None,
    wait_max_s: float = GUARD_WAIT_MAX_S,
    run_max_s: float = RUN_MAX_S,
    answer_max_s: float = ANSWER_MAX_S,
) -> list[str]:
    """Apply what is pending and return the names of the files applied, in order.

    Raise StoreDenied, in words, for a database that is none of ours or lets us make nothing, and StoreUnavailable.
    """
    watchdog = Watchdog()
    applied: list[str] = []
    try:
        with connector(url, pooler)(answer_max_s, 0) as connection:
            answers = partial(watchdog.watch, connection, answer_max_s)
            runs = partial(watchdog.watch, connection, run_max_s)
            while paths := _take_step(connection, wait_max_s, answers, runs):
                applied += map(_name, paths)
            return applied
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreDenied(
            "Postgres lets the user of DATABASE_URL make no tables or functions here: make it the database's owner, or "
            "GRANT CREATE ON SCHEMA public"
        ) from error
    except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as error:
        why = refusal_of(error)
        kind = StoreDenied if why in DENIALS.values() else StoreUnavailable
        raise kind(f"no connection to Postgres: {why}; check DATABASE_URL") from error
    finally:
        watchdog.stop()


def pending(database: Database) -> list[str]:
    """Name the files that `migrate` would apply."""
    with database.transaction(PENDING_S) as connection:
        exists = connection.execute("SELECT to_regclass('schema_files') IS NOT NULL").fetchone()
        return [_name(path) for path in (_pending(connection) if exists and exists[0] else _files())]


def shipped_code() -> dict[str, str]:
    """Return the SQL of each function and view that this release ships, by its file's name (`functions/accept`)."""
    return {_name(path): path.read_text(encoding="utf-8") for path in _code_files()}


def _take_step(connection: Connection, wait_max_s: float, answers: Watch, runs: Watch) -> Sequence[Path]:
    """Apply what comes next and return it; nothing when all is applied."""
    paths: Sequence[Path] = ()
    for _ in range(LOCK_TRIES):
        try:
            with _alone(connection, wait_max_s, answers):
                _check(connection)
                connection.execute(FILES_TABLE)
                paths = next(_steps(_pending(connection)), ())
                if paths:
                    runs()
                _apply(connection, paths)
        except psycopg.errors.LockNotAvailable:
            time.sleep(LOCK_PAUSE_S)
        else:
            return paths
    name = _name(paths[0]) if paths else "schema_files"
    raise StoreUnavailable(f"what {name} changes is in use all the time: run it again when less is going on")


@contextmanager
def _alone(connection: Connection, wait_max_s: float, answers: Watch) -> Iterator[None]:
    """Be inside a transaction beside which no other run has one."""
    ends = time.monotonic() + wait_max_s
    while True:
        answers()
        with connection.begun():
            connection.execute(TERMS.format(lock_wait_ms=LOCK_WAIT_MS).encode(), prepare=False)
            if _scalar(connection, "SELECT pg_try_advisory_xact_lock(%s)", GUARD):
                yield
                return
        if time.monotonic() > ends:
            raise StoreUnavailable(f"another migration has been running for {wait_max_s:.0f} s")
        time.sleep(GUARD_PAUSE_S)


def _pending(connection: psycopg.Connection[Any]) -> list[Path]:
    """List migrations never applied, then functions and views whose text differs from what was applied."""
    applied = dict(connection.execute("SELECT name, digest FROM schema_files").fetchall())
    return [
        path
        for path in _files()
        if _name(path) not in applied or (path.parent.name in CODE and applied[_name(path)] != _digest(path))
    ]


def _check(connection: psycopg.Connection[Any]) -> None:
    """Refuse a database whose texts could not be stored, and a schema whose tables are somebody else's."""
    if (encoding := _scalar(connection, "SHOW server_encoding")) != "UTF8":
        raise StoreDenied(f"the database's encoding is {encoding}, not UTF8: CREATE DATABASE … ENCODING 'UTF8'")
    if _scalar(connection, "SELECT current_schema()") is None:
        raise StoreDenied("the search_path names no schema that exists: CREATE SCHEMA, or another search_path")
    if _scalar(connection, "SELECT to_regclass('schema_files') IS NULL AND to_regclass('users') IS NOT NULL"):
        raise StoreDenied("there is a table users that is not Onelane's: use a database, or a schema, of its own")


def _steps(todo: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Divide the files into transactions: one a migration, one for all functions and views."""
    yield from ([path] for path in todo if path.parent.name not in CODE)
    if code := [path for path in todo if path.parent.name in CODE]:
        yield code


def _apply(connection: psycopg.Connection[Any], paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            connection.execute(path.read_bytes(), prepare=False)
        except OTHER_SHAPE as error:
            other = f"{path.parent.name.removesuffix('s')} {path.stem}"
            raise StoreDenied(f"there is another {other} ({error.sqlstate}): DROP it, and migrate again") from error
        connection.execute(RECORD, (_name(path), _digest(path)))


def _files() -> list[Path]:
    return [*sorted((SQL / "migrations").glob("*.sql")), *_code_files()]


def _code_files() -> list[Path]:
    """List functions, then the views that use them."""
    return [path for folder in CODE for path in sorted((SQL / folder).glob("*.sql"))]


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _scalar(connection: psycopg.Connection[Any], query: str, *params: object) -> Any:
    row = connection.execute(query, params).fetchone()
    return row[0] if row else None
