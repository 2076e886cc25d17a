"""Behind a PgBouncer in transaction mode everything works as without; nothing stays on a connection."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from onelane.bootstrap import open_services, open_worker
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.dev.embedded import EmbeddedPostgres
from onelane.dev.target import Target, call, sign
from onelane.doctor.examination import examine
from onelane.doctor.finding import Deployment
from onelane.errors import StoreAway, StoreDenied, StoreUnavailable
from onelane.postgres.connection import SETTINGS
from onelane.postgres.db import Database
from onelane.postgres.faults import POOLER
from onelane.postgres.migrations import GUARD, SQL, migrate
from tests.conftest import DEADLINE_S, Accept, RunWorker, deliver, eventually
from tests.guarded import refused_twice
from tests.pooler import Pooler
from tests.processes import web_process, worker_process
from tests.rows import Rows

AT_ONCE = 5
USERS = range(10)


@pytest.fixture
def pooler(tmp_path: Path, postgres: EmbeddedPostgres) -> Iterator[Pooler]:
    """One with a single connection to the server, which all share."""
    with Pooler(tmp_path, postgres.url) as pooler:
        yield pooler


@pytest.fixture
def beyond(settings: Settings, pooler: Pooler) -> Settings:
    return settings.model_copy(update={"database_url": pooler.url, "pg_pooler": "transaction"})


@pytest.fixture
def fresh(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The name of a new, empty database, whose defaults are not ours."""
    name = f"pooled_{uuid4().hex}"
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        for setting in ("default_transaction_isolation = 'serializable'", "synchronous_commit = off"):
            admin.execute(f"ALTER DATABASE {name} SET {setting}".encode())
        yield name
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _effective(database: Database) -> dict[str, str]:
    names = ["transaction_isolation", *SETTINGS]
    row = database.row("SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in names))
    assert row is not None
    return row._asdict()


@pytest.mark.parametrize("pooled", [False, True], ids=["directly", "through the pooler"])
def test_a_call_has_the_same_settings_whatever_stands_between(
    postgres: EmbeddedPostgres, pooler: Pooler, fresh: str, *, pooled: bool
) -> None:
    url = pooler.url_of(fresh) if pooled else postgres.url.replace("/postgres?", f"/{fresh}?")
    with closing(Database(url, pooler="transaction" if pooled else None, pool_max=1)) as database:
        assert _effective(database) == {"transaction_isolation": "read committed", **SETTINGS}
        with database.transaction() as connection:
            level = connection.execute("SHOW transaction_isolation").fetchone()
        assert level == ("read committed",)


@pytest.mark.slow
def test_conversations_and_the_doctor_leave_nothing_on_the_servers_connection(
    rows: Rows, settings: Settings, beyond: Settings, pooler: Pooler, run_worker: RunWorker
) -> None:
    with run_worker(beyond), closing(open_services(beyond)) as services:
        for nr in range(3):
            messages = [Delivery(senders=(f"user {user}",), external_id=f"{user}-{nr}", text=str(nr)) for user in USERS]
            deliver(services, messages)
        eventually(lambda: rows.waiting() == 0)
        deployment = Deployment(beyond, services.database, services.lanes)
        found = {one.check: one.finding for one in examine(deployment)}
    for user in USERS:
        assert rows.texts(rows.user_of("demo", f"user {user}")) == ["0", "1", "2"]
    assert rows.sessions_made() == len(USERS)
    assert {check: finding.found for check, finding in found.items() if finding.health == "failed"} == {}
    assert pooler.left_behind() == []


@pytest.mark.parametrize(
    "left",
    [
        "SET lock_timeout = '1s'",
        "PREPARE kept AS SELECT 1",
        "LISTEN kept",
        "CREATE TEMPORARY TABLE kept (n integer)",
        "SELECT pg_advisory_lock(1)",
    ],
)
def test_what_is_left_on_a_connection_is_found(pooler: Pooler, left: str) -> None:
    with psycopg.connect(pooler.url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(left)
    assert len(pooler.left_behind()) == 1


def test_many_migrations_at_once_over_one_connection_apply_each_file_once(pooler: Pooler, fresh: str) -> None:
    url = pooler.url_of(fresh)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        runs = list(threads.map(lambda _: migrate(url, pooler="transaction"), range(AT_ONCE)))
    applied = [name for run in runs for name in run]
    assert len(applied) == len(set(applied)) == len(list(SQL.glob("*/*.sql")))


def test_a_migration_through_the_pooler_waits_for_one_beside_it(
    postgres: EmbeddedPostgres, pooler: Pooler, fresh: str
) -> None:
    applied: list[list[str]] = []
    beside = threading.Thread(target=lambda: applied.append(migrate(pooler.url_of(fresh), pooler="transaction")))
    with psycopg.connect(postgres.url.replace("/postgres?", f"/{fresh}?"), autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (GUARD,))
        beside.start()
        refused_twice(connection)
    beside.join(DEADLINE_S)
    assert len(applied[0]) == len(list(SQL.glob("*/*.sql")))


@pytest.mark.parametrize("is_in_address", [True, False], ids=["in the address", "PGOPTIONS"])
def test_a_schema_of_ones_own_is_used_through_the_pooler(
    postgres: EmbeddedPostgres, pooler: Pooler, fresh: str, monkeypatch: pytest.MonkeyPatch, *, is_in_address: bool
) -> None:
    with psycopg.connect(postgres.url.replace("/postgres?", f"/{fresh}?"), autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "my 100% bot"')
    url = pooler.url_of(fresh)
    if is_in_address:
        url += "?options=-csearch_path%3D%22my%5C%20100%25%5C%20bot%22%20--work-mem%3D8MB"
    else:
        monkeypatch.setenv("PGOPTIONS", r'-c search_path="my\ 100%\ bot" --work-mem=8MB')
    migrate(url, pooler="transaction")
    with closing(Database(url, pooler="transaction", pool_max=1)) as database:
        row = database.row("SELECT to_regclass('users')::text AS found, current_setting('work_mem') AS memory")
        assert row == ("users", "8MB")
        assert database.row("SELECT current_schema() AS name WHERE 'a%%' LIKE %s", (r"a\%",)) == ("my 100% bot",)
        with database.transaction() as inside:
            assert inside.execute("SELECT current_schema()").fetchone() == ("my 100% bot",)


@pytest.mark.parametrize("ignored", ["", "options"], ids=["options are refused", "options are swallowed"])
def test_without_pg_pooler_a_worker_ends_with_one_line_that_names_it(
    settings: Settings, postgres: EmbeddedPostgres, tmp_path: Path, ignored: str
) -> None:
    with Pooler(tmp_path, postgres.url, ignore_startup_parameters=ignored) as pooler:
        mistaken = settings.model_copy(update={"database_url": pooler.url})
        with pytest.raises(StoreDenied, match=f"^no connection to Postgres: {POOLER}$"):
            open_worker(mistaken)


def test_a_prepared_statement_that_is_elsewhere_is_a_mistake_of_settings_and_not_the_calls(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    with (
        Pooler(tmp_path, postgres.url, ignore_startup_parameters="options") as pooler,
        closing(Database(pooler.url, pool_max=1)) as one,
        closing(Database(pooler.url, pool_max=1)) as other,
    ):
        one.rows("SELECT 1 AS mine")
        with pytest.raises(StoreDenied, match=f"^no connection to Postgres: {POOLER}$"):
            other.rows("SELECT 2 AS others")
        assert other.breaker.is_open


def test_a_server_that_takes_writes_again_is_used_at_once(
    postgres: EmbeddedPostgres, pooler: Pooler, fresh: str
) -> None:
    told = f"ALTER DATABASE {fresh} SET default_transaction_read_only = "
    with (
        psycopg.connect(postgres.url, autocommit=True) as admin,
        closing(Database(pooler.url_of(fresh), pooler="transaction", pool_max=1)) as database,
    ):
        admin.execute(f"{told} on".encode())
        with pytest.raises(StoreAway, match="25006"):
            database.row("SELECT 1")
        with pytest.raises(StoreUnavailable, match="ReadOnly"), database.transaction():
            pass
        admin.execute(f"{told} off".encode())  # the pooler's connections stay as they were
        eventually(lambda: _answers(database))


def test_a_pooler_whose_server_is_away_is_away_and_comes_back(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    with (
        Pooler(tmp_path, postgres.url, query_wait_timeout=1) as pooler,
        closing(Database(pooler.url, pooler="transaction", pool_max=2)) as database,
    ):
        database.ping()
        with pooler.behind.refusing():
            with pytest.raises(StoreAway, match="08P01"):
                database.ping()
            assert database.breaker.is_open
        eventually(lambda: _answers(database))


def test_a_pooler_that_allows_fewer_clients_than_the_pool_has_places_is_not_away(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    with (
        Pooler(tmp_path, postgres.url, max_client_conn=1) as pooler,
        closing(Database(pooler.url, pooler="transaction", pool_max=AT_ONCE, wait_s=DEADLINE_S)) as database,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        eventually(lambda: _answers(database))
        asked = threads.map(lambda _: database.row("SELECT 1 AS one FROM pg_sleep(0.02)"), range(4 * AT_ONCE))
        assert list(asked) == [(1,)] * 4 * AT_ONCE
        assert not database.breaker.is_open


@pytest.mark.slow
def test_a_pooler_that_is_killed_under_way_costs_no_attempt(
    rows: Rows, accept: Accept, beyond: Settings, pooler: Pooler, run_worker: RunWorker
) -> None:
    with run_worker(beyond) as worker:
        for nr in range(5):
            for user in USERS:
                accept(f"user {user}", str(nr))
            if nr % 2:
                pooler.kill()
                pooler.start()
        eventually(lambda: rows.waiting() == 0)
        assert rows.attempts_max() == 0
        eventually(lambda: not worker.services.database.breaker.is_open)
    assert rows.answered() == 5 * len(USERS)
    for user in USERS:
        assert rows.texts(rows.user_of("demo", f"user {user}")) == [str(nr) for nr in range(5)]


@pytest.mark.slow
def test_a_thousand_messages_are_answered_once_and_in_order_over_two_connections_though_a_worker_is_killed(
    rows: Rows, settings: Settings, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    senders = [f"user {nr}" for nr in range(100)]
    texts = [str(nr) for nr in range(10)]
    with Pooler(tmp_path, postgres.url, connections=2) as pooler:
        beyond = settings.model_copy(update={"database_url": pooler.url, "pg_pooler": "transaction"})
        with (
            web_process(beyond, tmp_path) as port,
            worker_process(beyond, log=tmp_path / "killed.log") as killed,
            worker_process(beyond, log=tmp_path / "surviving.log"),
            ThreadPoolExecutor(AT_ONCE) as threads,
        ):
            target = Target(f"http://127.0.0.1:{port}", "demo", beyond.channels["demo"])
            written = [threads.submit(_write, target, sender, texts) for sender in senders]
            eventually(lambda: rows.answered() > 200)
            os.kill(killed.pid, signal.SIGKILL)
            for one in written:
                one.result(DEADLINE_S)
            eventually(lambda: rows.answered() == 1_000)
    for sender in senders:
        assert rows.texts(rows.user_of("demo", sender)) == texts
    assert rows.out_of_order() == []
    assert rows.sessions_made() == len(senders)
    assert rows.attempts_max() == 0


def _write(target: Target, sender: str, texts: Sequence[str]) -> None:
    """Post messages as a provider does, each after the one before was accepted."""
    for text in texts:
        external_id = f"{sender}-{text}".replace(" ", ".")
        call(target, sign(target, Delivery(senders=(sender,), external_id=external_id, text=text)))


def _answers(database: Database) -> bool:
    try:
        return database.row("SELECT 1") is not None
    except StoreAway:
        return False
