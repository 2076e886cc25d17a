"""Brings a database to this release: numbered migrations once, functions and views whenever their text changed.

Safe to run concurrently and to kill: one runner at a time by an advisory lock that is polled (a blocking wait would
deadlock with CREATE INDEX CONCURRENTLY), each file in a transaction together with the row that records it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg

from onelane.connection import Connection, Watchdog
from onelane.db import Database
from onelane.errors import StoreUnavailable

PACKAGE = Path(__file__).resolve().parent
SQL = next((folder for folder in (PACKAGE / "sql", PACKAGE.parents[1] / "sql") if folder.is_dir()), PACKAGE / "sql")
"""In a wheel inside the package, in a checkout beside it."""
CODE = ("functions", "views")
GUARD = 7_264_011_930
GUARD_WAIT_MAX_S = 120
RUN_MAX_S = 3_600
"""A run that takes longer is cut off: its link may have gone silent, which only our own clock notices."""

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


def migrate(url: str, *, wait_max_s: float = GUARD_WAIT_MAX_S, run_max_s: float = RUN_MAX_S) -> list[str]:
    """Apply what is pending and return the names of the files applied, in order."""
    watchdog = Watchdog()
    try:
        with Connection.connect(url, autocommit=True, connect_timeout=10) as connection:
            watchdog.watch(connection, run_max_s)
            with _guard(connection, wait_max_s):
                connection.execute(FILES_TABLE)
                todo = _pending(connection)
                for path in todo:
                    _apply(connection, path)
            return [_name(path) for path in todo]
    except psycopg.OperationalError as error:
        raise StoreUnavailable("Postgres cannot be reached: check DATABASE_URL") from error
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
def _guard(connection: psycopg.Connection[Any], wait_max_s: float) -> Iterator[None]:
    deadline = time.monotonic() + wait_max_s
    while not _scalar(connection, "SELECT pg_try_advisory_lock(%s)", GUARD):
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


def _apply(connection: psycopg.Connection[Any], path: Path) -> None:
    with connection.transaction():
        # Functions may name each other, and tables of a later file, in any order.
        connection.execute("SET LOCAL check_function_bodies = off")
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
