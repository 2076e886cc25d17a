"""A worker that cannot work with Postgres: it takes no lanes, keeps what is finished, and comes back by itself."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import psycopg
import pytest
import redis

from onelane.bootstrap import Services, open_worker
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.errors import StoreDenied, StoreUnavailable
from onelane.postgres.migrations import shipped_code
from tests.conftest import DEADLINE_S, Accept, RunWorker, eventually, stand
from tests.lane_state import due_ms, is_leased, now_ms
from tests.processes import worker_process
from tests.proxy import Proxy
from tests.rows import Rows

SLOTS = 4
LOCK = "lock:in:"
TRIES = 10
"""More than a handler's run would have had, did its commit wait two seconds and no more."""


def _logged(log: Path, name: str) -> bool:
    return log.exists() and name in log.read_text()


def _name_in(log: Path) -> str:
    """Return the name of the worker whose log this is."""
    started = next(line for line in log.read_text().splitlines() if "worker_started" in line)
    return str(json.loads(started)["worker"])


@contextmanager
def _leases_of(worker: str, settings: Settings) -> Iterator[list[str]]:
    """List, as they come, the locks that a worker takes."""
    locks: list[str] = []
    with redis.Redis.from_url(settings.redis_url) as client, client.monitor() as monitor:

        def listen() -> None:
            with suppress(redis.ConnectionError, OSError, ValueError):
                for heard in monitor.listen():
                    if heard["command"].startswith(f"HSET {LOCK}") and f"worker {worker}" in heard["command"]:
                        locks.append(heard["command"].split()[1])  # noqa: PERF401 - they are read as they come

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        yield locks
        monitor.connection.disconnect()
        listener.join(DEADLINE_S)


@contextmanager
def _full_disk(services: Services) -> Iterator[None]:
    """Let every commit of a turn meet a full disk, and count them."""
    body = shipped_code()["functions/settle_message"]
    full = body.replace("BEGIN\n", "BEGIN\n    PERFORM nextval('tries'); RAISE 'full' USING ERRCODE = '53100';\n", 1)
    assert full != body
    services.database.rows("DROP SEQUENCE IF EXISTS tries")
    services.database.rows("CREATE SEQUENCE tries")  # counts on, whatever is rolled back
    services.database.rows(full)
    try:
        yield
    finally:
        services.database.rows(body)


def _tries(rows: Rows) -> int:
    return int(rows.ask("SELECT last_value FROM tries").last_value)


def _takes_writes(services: Services) -> bool:
    try:
        services.database.probe()
    except StoreUnavailable:
        return False
    return True


@contextmanager
def _read_only(services: Services) -> Iterator[None]:
    """Take no writes, as a primary does that has become a replica; connections stay."""
    with psycopg.connect(services.settings.database_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        try:
            eventually(lambda: not _takes_writes(services))
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
            eventually(lambda: _takes_writes(services))


@pytest.mark.slow
def test_a_worker_behind_a_dead_link_leaves_all_lanes_to_a_healthy_one_and_comes_back(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    cut_off, healthy = tmp_path / "cut_off.log", tmp_path / "healthy.log"
    names = map(str, count())
    with Proxy(settings.database_url) as proxy:
        beyond = settings.model_copy(update={"database_url": proxy.url, "worker_slots": SLOTS})
        with worker_process(beyond, log=cut_off), worker_process(settings, log=healthy):
            eventually(lambda: _logged(cut_off, "worker_started") and _logged(healthy, "worker_started"))
            with proxy.silencing():
                eventually(lambda: accept(next(names)) and _logged(cut_off, "postgres_away"), every_s=0.1)
                with _leases_of(_name_in(cut_off), settings) as leases:
                    for _ in range(30):
                        accept(next(names))
                    eventually(lambda: rows.waiting() == 0)
                assert len(leases) <= SLOTS  # what it had asked for at that moment
            eventually(lambda: _logged(cut_off, "postgres_back"))
    assert rows.attempts_max() == 0


@pytest.mark.slow
def test_a_finished_turn_is_committed_later_and_its_handler_runs_once(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    message = accept("alice")
    with worker_process(settings, bot_log=runs):
        with _full_disk(services):
            eventually(lambda: _tries(rows) >= TRIES)
        eventually(lambda: rows.answered() == 1)
    assert len(runs.read_text().splitlines()) == 1
    assert rows.message(message.message_id).attempts == 0


@pytest.mark.slow
def test_a_worker_that_stops_hands_back_what_it_could_not_commit(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    message = accept("alice")
    with _full_disk(services):
        with run_worker(settings):
            eventually(lambda: _tries(rows) >= 2)
        assert not is_leased(services, message.user_id)
        assert due_ms(services, message.user_id) <= now_ms(services)
    row = rows.message(message.message_id)
    assert (row.state, row.attempts, row.deaths) == ("received", 0, 0)


@pytest.mark.slow
def test_a_turn_that_finished_on_a_read_only_server_is_kept_for_the_right_one(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    runs, gate, log = tmp_path / "runs", tmp_path / "gate", tmp_path / "worker.log"
    with worker_process(settings, log=log, bot_log=runs):
        accept("alice", f"wait {gate}")
        eventually(runs.exists)
        with _read_only(services):
            gate.touch()
            eventually(lambda: _logged(log, "postgres_away"))
            assert not stand(services, [Delivery(senders=("bob",), external_id="bob's", text="hello")])
        eventually(lambda: rows.answered() == 1)
    assert len(runs.read_text().splitlines()) == 1
    assert rows.attempts_max() == 0


def test_a_probe_writes_and_leaves_nothing(services: Services, rows: Rows) -> None:
    assert _takes_writes(services)
    assert rows.counts()["users"] == 0
    with _read_only(services):
        assert not _takes_writes(services)


@pytest.mark.slow
@pytest.mark.parametrize("away", ["database_url", "redis_url"])
def test_a_worker_that_starts_while_a_server_is_away_waits_for_it(
    away: str, rows: Rows, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    """It ended with 1, and its supervisor's pauses grew to half a minute."""
    message, log = accept("alice"), tmp_path / "worker.log"
    with Proxy(str(getattr(settings, away))) as proxy, ExitStack() as processes:
        with proxy.refusing():
            beyond = settings.model_copy(update={away: proxy.url})
            worker = processes.enter_context(worker_process(beyond, log=log))
            eventually(lambda: _logged(log, "worker_waits"))
        eventually(lambda: rows.is_settled(message.user_id))
        assert log.read_text().count("worker_waits") == 1
        assert worker.is_running


@pytest.mark.slow
def test_a_worker_that_waits_for_a_server_ends_at_once_when_asked_to(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(settings.database_url))
        stack.enter_context(proxy.refusing())
        beyond = settings.model_copy(update={"database_url": proxy.url})
        worker = stack.enter_context(worker_process(beyond, log=log))
        eventually(lambda: _logged(log, "worker_waits"))
        worker.ask_to_stop()
        assert worker.wait(DEADLINE_S) == 0


@pytest.mark.parametrize(("part", "wrong"), [("/postgres?", "/nothing?"), ("//postgres@", "//nobody@")])
def test_a_worker_with_a_wrong_database_url_ends_as_for_any_mistake_of_configuration(
    settings: Settings, part: str, wrong: str
) -> None:
    """It waited for a server that was there."""
    assert part in settings.database_url
    mistaken = settings.model_copy(update={"database_url": settings.database_url.replace(part, wrong)})
    with pytest.raises(StoreDenied, match="DATABASE_URL"):
        open_worker(mistaken.model_copy(update={"handler": "tests.bots:handle"}))
