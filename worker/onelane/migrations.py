"""Brings a database to this release: numbered migrations once, functions and views whenever their text changed.

Safe to run concurrently and to kill: one runner at a time by an advisory lock that is polled (a blocking wait would
deadlock with CREATE INDEX CONCURRENTLY). Each migration is a transaction with the row that records it; functions and
views go in together, so that no call meets half of a release. None waits long for a table: behind one that waits, all
that use the table would wait too.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg

from onelane.connection import DENIALS, Connection, Watchdog, refusal_of
from onelane.db import Database
from onelane.errors import StoreDenied, StoreUnavailable

PACKAGE = Path(__file__).resolve().parent
SQL = next((folder for folder in (PACKAGE / "sql", PACKAGE.parents[1] / "sql") if folder.is_dir()), PACKAGE / "sql")
"""In a wheel inside the package, in a checkout beside it."""
CODE = ("functions", "views")
GUARD = 7_264_011_930
GUARD_WAIT_MAX_S = 120
LOCK_WAIT_MS = 2_000
LOCK_PAUSE_S = 1.0
"""Between two tries, whoever was held up goes on."""
LOCK_TRIES = 30
RUN_MAX_S = 3_600
"""What one step may take, however large the tables are."""
ANSWER_MAX_S = 15
"""The same for what changes no table. Who takes longer is cut off: a link may go silent, which only our clock notices.
"""

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
    wait_max_s: float = GUARD_WAIT_MAX_S,
    run_max_s: float = RUN_MAX_S,
    answer_max_s: float = ANSWER_MAX_S,
) -> list[str]:
    """Apply what is pending and return the names of the files applied, in order.

    Raise StoreDenied, in words, for a database that is none of ours or lets us make nothing, and StoreUnavailable.
    """
    watchdog = Watchdog()
    try:
        with Connection.reach(url, answer_max_s, autocommit=True) as connection:
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            with _guard(connection, wait_max_s, lambda: watchdog.watch(connection, answer_max_s)):
                _check(connection)
                connection.execute(FILES_TABLE)
                todo = _pending(connection)
                for paths in _steps(todo):
                    watchdog.watch(connection, run_max_s)
                    _apply_patiently(connection, paths)
                watchdog.watch(connection, answer_max_s)
            return [_name(path) for path in todo]
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreDenied(
            "Postgres lets the user of DATABASE_URL make no tables or functions here: make it the database's owner, or "
            "GRANT CREATE ON SCHEMA public"
        ) from error
    except psycopg.OperationalError as error:
        why = refusal_of(error)
        kind = StoreDenied if why in DENIALS.values() else StoreUnavailable
        raise kind(f"no connection to Postgres: {why}; check DATABASE_URL") from error
    finally:
        watchdog.stop()


def pending(database: Database) -> list[str]:
    """Name the files that `migrate` would apply."""
    with database.transaction() as connection:
        exists = connection.execute("SELECT to_regclass('schema_files') IS NOT NULL").fetchone()
        return [_name(path) for path in (_pending(connection) if exists and exists[0] else _files())]


def shipped_code() -> dict[str, str]:
    """Return the SQL of each function and view that this release ships, by its file's name (`functions/accept`)."""
    return {_name(path): path.read_text(encoding="utf-8") for path in _code_files()}


@contextmanager
def _guard(connection: psycopg.Connection[Any], wait_max_s: float, watch: Callable[[], object]) -> Iterator[None]:
    """Let one runner in at a time. `watch` gives each question, and what comes after the last, a deadline."""
    deadline = time.monotonic() + wait_max_s
    watch()
    while not _scalar(connection, "SELECT pg_try_advisory_lock(%s)", GUARD):
        watch()
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"another migration has been running for {wait_max_s:.0f} s")
        time.sleep(0.1)
    try:
        yield
    finally:
        _scalar(connection, "SELECT pg_advisory_unlock(%s)", GUARD)


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


def _apply_patiently(connection: psycopg.Connection[Any], paths: Sequence[Path]) -> None:
    for _ in range(LOCK_TRIES):
        try:
            _apply(connection, paths)
        except psycopg.errors.LockNotAvailable:
            time.sleep(LOCK_PAUSE_S)
        else:
            return
    raise StoreUnavailable(f"what {_name(paths[0])} changes is in use all the time: run it again when less is going on")


def _apply(connection: psycopg.Connection[Any], paths: Sequence[Path]) -> None:
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}")
        # Functions may name each other, and tables of a later file, in any order.
        connection.execute("SET LOCAL check_function_bodies = off")
        for path in paths:
            connection.execute(path.read_bytes())
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
