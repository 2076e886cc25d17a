"""Thousands of turns that wait at once in one worker process: what they hold, and how they end."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from tests.conftest import DEADLINE_S, Accept, accept_all, eventually
from tests.processes import renewer_of, worker_process
from tests.rows import Rows

MEMORY_MB = 512
CONNECTIONS_MAX = 8
TTL_S = 6
LIVES = 3
GRACE_S = 3.0
ENDS_S = 4.0
BUSY_S = 8
"""What a busy machine may add."""
SYNC = 300
ASYNC = 5_000
TURN_TIMEOUT_S = 60
HEAD_START_S = 25
"""By so much the turn that is to time out is older than all others."""


def memory_mb(pid: int) -> float:
    """Add up what a worker and its helper hold; pages that they share count once."""
    rollups = [Path(f"/proc/{process}/smaps_rollup").read_text() for process in (pid, renewer_of(pid))]
    return sum(int(line.split()[1]) for rollup in rollups for line in rollup.splitlines() if line[:4] == "Pss:") / 1024


def waiting_at(gate: Path) -> tuple[int, float]:
    """Return how many turns wait at a gate, and for how long its first has."""
    count = gate.with_suffix(".count")
    number, seconds = count.read_text().split() if count.exists() else ("0", "0")
    return int(number), float(seconds)


@pytest.fixture
def connections(rows: Rows, services: Services) -> Callable[[], int]:
    """Count what others than this process have to Postgres and Redis."""

    def count() -> int:
        row = rows.ask("SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'onelane'")
        return int(row.n) + sum(client["name"] == "onelane" for client in services.lanes.client.client_list())

    return count


@pytest.mark.slow
def test_three_hundred_sync_turns_wait_at_once_with_few_connections(
    settings: Settings, services: Services, rows: Rows, connections: Callable[[], int], tmp_path: Path
) -> None:
    accept_all(services, [(f"user {nr}", "gate") for nr in range(SYNC)])
    ours, log, gate = connections(), tmp_path / "worker.log", tmp_path / "gate"
    with worker_process(
        settings, f"--slots={SYNC}", handler="tests.waiters:handle", log=log, lock_ttl_s=TTL_S, waiters=tmp_path
    ) as worker:
        eventually(lambda: waiting_at(gate)[0] == SYNC)
        eventually(lambda: waiting_at(gate)[1] > LIVES * TTL_S)
        assert connections() - ours <= CONNECTIONS_MAX
        assert memory_mb(worker.pid) <= MEMORY_MB
        gate.touch()
        eventually(lambda: rows.answered() == SYNC)
    assert "lease_lost" not in log.read_text()


@pytest.mark.slow
def test_five_thousand_async_turns_wait_at_once_and_each_ends_as_it_would_alone(
    settings: Settings,
    services: Services,
    rows: Rows,
    accept: Accept,
    connections: Callable[[], int],
    tmp_path: Path,
) -> None:
    """One times out, half are answered, and the others are handed back as the worker ends, and answered by the next."""
    settings = settings.model_copy(
        update={"lock_ttl_s": TTL_S, "turn_timeout_s": TURN_TIMEOUT_S, "retry_base_s": 600, "retry_max_s": 600}
        | {"shutdown_grace_s": GRACE_S, "worker_slots": ASYNC, "handler": "tests.waiters:handle_async"}
    )
    log, never, early, late = (tmp_path / name for name in ("worker.log", "never", "early", "late"))
    stuck, ours = accept("stuck", "never"), connections()
    with worker_process(settings, handler=settings.handler, log=log, waiters=tmp_path) as worker:
        eventually(lambda: waiting_at(never)[1] > HEAD_START_S)
        others = [(f"user {nr}", "early" if nr % 2 else "late") for nr in range(ASYNC - 1)]
        accept_all(services, others)
        eventually(lambda: waiting_at(early)[0] + waiting_at(late)[0] == len(others), every_s=0.1)
        assert connections() - ours <= CONNECTIONS_MAX
        assert memory_mb(worker.pid) <= MEMORY_MB
        eventually(lambda: min(waiting_at(early)[1], waiting_at(late)[1]) > LIVES * TTL_S, every_s=0.1)
        eventually(lambda: rows.message(stuck.message_id).attempts == 1, every_s=0.1)
        early.touch()
        eventually(lambda: rows.answered() == sum(text == "early" for _, text in others), every_s=0.1)
        assert log.read_text().count('"event": "turn_failed"') == 1
        asked_at = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(DEADLINE_S) == 0
        assert time.monotonic() - asked_at < GRACE_S + ENDS_S + BUSY_S
    assert "lease_lost" not in log.read_text()
    left = [user.user_id for user in rows.accepted() if user.text == "late"]
    assert services.lanes.client.exists(*map(keys.lock, left)) == 0, "all were handed back"
    late.touch()
    with worker_process(settings, handler=settings.handler, waiters=tmp_path):
        eventually(lambda: rows.waiting() == 1, every_s=0.1)
    assert rows.answered() == len(others) == len({reply.user_id for reply in rows.answers()})
    assert {(message.attempts, message.deaths) for message in rows.accepted()} == {(0, 0), (1, 0)}
