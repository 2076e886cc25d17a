"""`onelane migrate`: run by many at once, killed at any statement, repeated; and what it applies again."""

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection

from onelane.bootstrap import open_services
from onelane.cli import main
from onelane.config import Settings
from onelane.dev.embedded import EmbeddedPostgres
from onelane.doctor.finding import Deployment
from onelane.doctor.schema import functions_match, tables_match
from onelane.errors import EXIT_CONFIG, StoreDenied, StoreUnavailable
from onelane.postgres import migrations
from onelane.postgres.db import Database
from onelane.postgres.migrations import GUARD, SQL, migrate, pending
from tests.conftest import DEADLINE_S, NIGHTLY, ROOT, eventually
from tests.guarded import refused_twice
from tests.processes import environment
from tests.proxy import Proxy

AT_ONCE = 5
EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
SCHEMA = """
SELECT 'column', attrelid::regclass::text, attname::text,
       concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attidentity, pg_get_expr(adbin, adrelid))
  FROM pg_attribute
  JOIN pg_class c ON c.oid = attrelid AND c.relnamespace = 'public'::regnamespace
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'relation', oid::regclass::text, relkind::text, obj_description(oid, 'pg_class')
  FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname::text,
       concat_ws(' ', pg_get_constraintdef(oid), convalidated, obj_description(oid, 'pg_constraint'))
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', indrelid::regclass::text, indexrelid::regclass::text,
       concat_ws(' ', pg_get_indexdef(indexrelid), indisvalid)
  FROM pg_index JOIN pg_class c ON c.oid = indexrelid AND c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'function', oid::regprocedure::text, '', pg_get_functiondef(oid)
  FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'view', oid::regclass::text, '', pg_get_viewdef(oid)
  FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, tgname::text, pg_get_triggerdef(oid)
  FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'file', name, '', digest FROM schema_files
ORDER BY 1, 2, 3
"""
"""Everything that a migration may make."""

WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'onelane'
"""


@pytest.fixture
def url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A new, empty database."""
    name = f"migrations_{uuid4().hex}"
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield postgres.url.replace("/postgres?", f"/{name}?")
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(url: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the SQL that is shipped, to change."""
    folder = shutil.copytree(SQL, tmp_path / "sql")
    monkeypatch.setattr(migrations, "SQL", folder)
    return folder


@contextmanager
def closing_database(url: str) -> Iterator[Database]:
    asked = Database(url, pool_max=1)
    try:
        yield asked
    finally:
        asked.close()


def schema(database: Connection[Any]) -> list[Any]:
    return database.execute(SCHEMA).fetchall()


def applied_at(database: Connection[Any]) -> dict[str, datetime]:
    return dict(database.execute("SELECT name, applied_at FROM schema_files").fetchall())


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def waiting(database: Connection[Any]) -> int:
    """Count the runs that wait for the guard."""
    return sum(database.execute(WAITING).fetchone() or ())


def run_migrate(settings: Settings, url: str) -> subprocess.Popen[str]:
    """Start `onelane migrate` as a release phase does."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "onelane", "migrate"],
        env=environment(settings, database_url=url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_many_at_once_on_an_empty_database_apply_each_file_once(
    settings: Settings, url: str, database: Connection[Any]
) -> None:
    database.execute("SELECT pg_advisory_lock(%s)", (GUARD,))
    processes = [run_migrate(settings, url) for _ in range(AT_ONCE)]
    eventually(lambda: waiting(database) == AT_ONCE)
    database.execute("SELECT pg_advisory_unlock(%s)", (GUARD,))
    ended = [(*process.communicate(timeout=DEADLINE_S), process.returncode) for process in processes]
    assert [code for _, _, code in ended] == [0] * AT_ONCE, [error for _, error, _ in ended]
    lines = [line for out, _, _ in ended for line in out.splitlines()]
    applied = [line.removeprefix("applied ") for line in lines if line.startswith("applied ")]
    assert sorted(applied) == sorted(applied_at(database))
    assert len(applied) == len(list(SQL.glob("*/*.sql")))


@contextmanager
def faulty_runs(url: str) -> Iterator[Callable[[str, int], tuple[int, int]]]:
    """Run migrations that kill themselves at a statement; a run returns its exit code, and how many it sent."""
    command = [sys.executable, "-m", "tests.faulty_migration", url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        faults, results = process.stdin, process.stdout
        assert faults is not None
        assert results is not None

        def run(side: str, number: int) -> tuple[int, int]:
            faults.write(f"{side} {number}\n")
            faults.flush()
            code, sent = results.readline().split()
            return int(code), int(sent)

        yield run
        faults.close()


@pytest.mark.slow
@pytest.mark.parametrize("every", [29, pytest.param(2, marks=NIGHTLY)])
def test_a_run_that_was_killed_at_any_statement_is_taken_up_by_the_next(
    url: str, database: Connection[Any], every: int
) -> None:
    with faulty_runs(url) as run:
        code, statements = run("never", 0)
        assert code == 0
        assert statements > 2 * len(list(SQL.glob("*/*.sql")))
        fresh = schema(database)
        for side, number in product(("before", "after"), range(1, statements + 1, every)):
            database.execute(EMPTY)
            assert run(side, number)[0] == -signal.SIGKILL
            migrate(url, wait_max_s=DEADLINE_S)
            assert schema(database) == fresh, f"killed {side} statement {number}"
    assert migrate(url) == []


def test_a_run_that_waits_for_another_goes_on_when_that_has_ended(url: str, database: Connection[Any]) -> None:
    database.execute("SELECT pg_advisory_lock(%s)", (GUARD,))
    applied: list[list[str]] = []
    second = threading.Thread(target=lambda: applied.append(migrate(url)))
    second.start()
    refused_twice(database)
    database.execute("SELECT pg_advisory_unlock(%s)", (GUARD,))
    second.join(DEADLINE_S)
    assert len(applied[0]) == len(list(SQL.glob("*/*.sql")))


def test_a_run_that_waits_for_another_gives_up_with_one_sentence(url: str, database: Connection[Any]) -> None:
    database.execute("SELECT pg_advisory_lock(%s)", (GUARD,))
    with pytest.raises(StoreUnavailable, match=r"^another migration has been running for 1 s$"):
        migrate(url, wait_max_s=1)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_run_over_a_link_that_went_silent_ends(url: str, database: Connection[Any]) -> None:
    database.execute("SELECT pg_advisory_lock(%s)", (GUARD,))
    with ThreadPoolExecutor(1) as threads, Proxy(url) as proxy:
        silenced = threads.submit(migrate, proxy.url, answer_max_s=2)
        eventually(lambda: waiting(database) == 1)
        proxy.silence()
        with pytest.raises(StoreUnavailable):
            silenced.result(DEADLINE_S)


@pytest.mark.usefixtures("_root_logger_as_it_was")
@pytest.mark.parametrize(
    "command",
    [
        ("dead", "list"),
        ("replies",),
        ("user", "show", "demo:alice"),
        ("quarantine", "list"),
        ("dead", "retry", "--all"),
    ],
    ids=" ".join,
)
def test_a_command_on_a_database_that_is_not_migrated_says_so_in_one_line(
    url: str,
    settings: Settings,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment(settings, database_url=url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["onelane", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == EXIT_CONFIG
    said = capsys.readouterr().err
    assert re.fullmatch(r"onelane: .*\(SQLSTATE 42[0-9P]{3}\): run `onelane migrate`\n", said), said


def test_a_second_run_applies_nothing(url: str, database: Connection[Any]) -> None:
    assert migrate(url) == [migrations._name(path) for path in migrations._files()]
    before = applied_at(database)
    assert migrate(url) == []
    assert applied_at(database) == before


@pytest.mark.parametrize("name", ["functions/accept", "views/session_reuse"])
def test_changed_code_is_applied_again_and_nothing_else(
    name: str, url: str, database: Connection[Any], shipped: Path
) -> None:
    migrate(url)
    before, fresh = applied_at(database), schema(database)
    append(shipped / f"{name}.sql", "\n-- changed\n")
    with closing_database(url) as asked:
        assert pending(asked) == [name]
    assert migrate(url) == [name]
    after = applied_at(database)
    assert {file for file in after if after[file] != before[file]} == {name}
    assert [row for row in schema(database) if row not in fresh and row[0] != "file"] == []
    assert migrate(url) == []


def test_a_migration_is_applied_once_whatever_its_text_is_later(
    url: str, database: Connection[Any], shipped: Path
) -> None:
    migrate(url)
    [first, *_] = sorted((shipped / "migrations").iterdir())
    append(first, "\nDROP TABLE users CASCADE;\n")
    assert migrate(url) == []


def test_a_new_migration_is_applied_before_the_code_that_needs_it(
    url: str, database: Connection[Any], shipped: Path
) -> None:
    migrate(url)
    (shipped / "migrations" / "9999_later.sql").write_text("CREATE TABLE later (n integer)")
    (shipped / "functions" / "a_first.sql").write_text(
        "CREATE FUNCTION a_first() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM later'"
    )
    assert migrate(url) == ["migrations/9999_later", "functions/a_first"]
    assert database.execute("SELECT a_first()").fetchone() == (0,)


def test_a_file_that_fails_leaves_nothing_of_itself_and_what_came_before_it_stays(
    url: str, database: Connection[Any], shipped: Path
) -> None:
    broken = shipped / "migrations" / "9999_broken.sql"
    broken.write_text("CREATE TABLE half (n integer); SELECT 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(url)
    first = sorted(path.stem for path in (shipped / "migrations").iterdir())[:-1]
    assert set(applied_at(database)) == {f"migrations/{name}" for name in first}
    assert database.execute("SELECT to_regclass('half')").fetchone() == (None,)
    broken.write_text("CREATE TABLE whole (n integer)")
    assert migrate(url)[0] == "migrations/9999_broken"
    assert database.execute("SELECT pg_try_advisory_lock(%s)", (GUARD,)).fetchone() == (True,), "the guard was released"


def test_code_goes_in_as_one_so_that_no_call_meets_half_of_a_release(
    url: str, database: Connection[Any], shipped: Path
) -> None:
    migrate(url)
    append(shipped / "functions" / "accept.sql", "-- changed")
    append(shipped / "views" / "session_reuse.sql", "SELECT 1 / 0;")
    before = applied_at(database)
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(url)
    assert applied_at(database) == before


@pytest.mark.slow
def test_a_run_that_cannot_lock_a_table_lets_others_pass_and_tries_again(
    url: str, database: Connection[Any], shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_WAIT_MS", 50)
    monkeypatch.setattr(migrations, "LOCK_PAUSE_S", 0.05)
    migrate(url)
    (shipped / "migrations" / "9999_later.sql").write_text("ALTER TABLE users ADD COLUMN later text")
    with database.transaction():
        database.execute("SELECT 1 FROM users")
        with pytest.raises(StoreUnavailable, match=r"^what migrations/9999_later changes is in use all the time"):
            migrate(url)
    assert migrate(url) == ["migrations/9999_later"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("CREATE TABLE users (id integer)", "there is a table users that is not Onelane's"),
        ("ALTER DATABASE {name} SET search_path = nosuchschema", "the search_path names no schema that exists"),
    ],
)
def test_a_database_that_is_not_ours_is_left_as_it_is(
    url: str, database: Connection[Any], made: str, said: str
) -> None:
    database.execute(made.format(name=database.info.dbname).encode())
    with pytest.raises(StoreDenied, match=f"^{said}"):
        migrate(url)
    assert database.execute("SELECT to_regclass('public.schema_files')").fetchone() == (None,)


def test_a_database_of_another_encoding_is_refused(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        with pytest.raises(StoreDenied, match=r"^the database's encoding is LATIN1, not UTF8"):
            migrate(postgres.url.replace("/postgres?", "/latin?"))
        admin.execute("DROP DATABASE latin WITH (FORCE)")


def test_a_user_who_may_make_nothing_is_told_what_to_grant(
    url: str, database: Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE ROLE visitor")
    monkeypatch.setenv("PGOPTIONS", "-c role=visitor")
    try:
        with pytest.raises(StoreDenied, match="GRANT CREATE ON SCHEMA public"):
            migrate(url)
    finally:
        database.execute("DROP ROLE visitor")


@pytest.mark.parametrize("is_in_address", [True, False], ids=["in the address", "PGOPTIONS"])
def test_a_schema_of_ones_own_is_used_by_everything(
    settings: Settings, url: str, database: Connection[Any], monkeypatch: pytest.MonkeyPatch, *, is_in_address: bool
) -> None:
    database.execute("CREATE SCHEMA bot")
    if is_in_address:
        url += "&options=-csearch_path%3Dbot"
    else:
        monkeypatch.setenv("PGOPTIONS", "-c search_path=bot")
    migrate(url)
    with closing(open_services(settings.model_copy(update={"database_url": url}))) as services:
        delivery = {"channel": "demo", "senders": ["alice"], "external_id": "m1"}
        assert services.database.ask("accept", [delivery])[0]["outcome"] == "accepted"
        deployment = Deployment(services.settings, services.database, services.lanes)
        assert [functions_match(deployment).health, tables_match(deployment).health] == ["ok", "ok"]
    assert database.execute("SELECT sender FROM bot.users").fetchall() == [("alice",)]
    assert database.execute("SELECT to_regclass('public.users')").fetchone() == (None,)


def test_calls_are_read_committed_and_durable_whatever_the_databases_defaults_are(
    url: str, database: Connection[Any]
) -> None:
    for setting in ("default_transaction_isolation = 'serializable'", "synchronous_commit = off"):
        database.execute(f"ALTER DATABASE {database.info.dbname} SET {setting}".encode())
    migrate(url)
    with closing_database(url) as asked:
        row = asked.row(
            "SELECT current_setting('transaction_isolation') AS level, current_setting('synchronous_commit') AS kept"
        )
    assert row == ("read committed", "on")


def test_before_the_first_run_everything_is_pending(url: str) -> None:
    with closing_database(url) as asked:
        assert len(pending(asked)) == len(list(SQL.glob("*/*.sql")))
    migrate(url)
    with closing_database(url) as asked:
        assert pending(asked) == []


def test_a_server_that_is_away_is_one_sentence() -> None:
    with pytest.raises(StoreUnavailable, match="check DATABASE_URL"):
        migrate("postgresql://nobody@127.0.0.1:1/nothing")
