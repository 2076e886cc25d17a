"""A deploy as on dynos: honcho starts the Procfile, releases overlap under traffic, SIGTERM comes to every process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.embedded import EmbeddedPostgres
from onelane.dev.embedded.child import descendants
from onelane.postgres.budget import budget
from tests.conftest import DEADLINE_S, eventually
from tests.deploys import USERS, WORKERS, Release, Traffic, check_nothing_lost_and_in_order
from tests.rows import Rows

PLAN_MAX = 20  # connections that small plans allow, to each server


@pytest.fixture
def start(settings: Settings, services: Services, tmp_path: Path) -> Iterator[Callable[[str], Release]]:
    """Start a release by name; whatever is left at the end of the test is killed."""
    started: list[Release] = []
    changed = settings.model_copy(update={"shutdown_grace_s": 4.0, "handler": "tests.bots:handle"})

    def start(name: str) -> Release:
        started.append(Release(changed, tmp_path / name, bot_log=tmp_path / "bot.log"))
        return started[-1]

    yield start
    for release in started:
        release.stack.stop(within_s=0)


@pytest.mark.slow
def test_deploys_under_traffic_lose_nothing_reorder_nothing_and_need_few_connections(
    start: Callable[[str], Release], settings: Settings, services: Services, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Two deploys: the first stops the old release while the new one starts, the second when the new one is up."""
    traffic, first = Traffic(settings), start("first")
    with _watched(postgres.url, services) as peak:
        eventually(lambda: first.is_up)
        with traffic.flowing(first.port):
            traffic.await_more()
            second = start("second")
            traffic.ports.append(second.port)
            eventually(lambda: descendants(second.process.pid))
            first.stop()
            eventually(lambda: second.is_up)
            third = start("third")
            traffic.ports[:] = [second.port, third.port]
            eventually(lambda: third.is_up)
            traffic.await_more()
            second.stop()
            traffic.await_more()
    check_nothing_lost_and_in_order(Rows(services.database), traffic)
    _check_turns_ran_in_order(tmp_path / "bot.log")
    _check_budget(settings, peak)
    third.stop()


def _check_budget(settings: Settings, peak: list[int]) -> None:
    allowed = budget(settings, webs=1, workers=WORKERS)
    assert max(allowed) <= PLAN_MAX
    assert peak[0] <= allowed.postgres
    assert peak[1] <= allowed.redis
    assert min(peak) >= 2 * (1 + WORKERS), "every process of two releases was looked at"


@contextmanager
def _watched(url: str, services: Services) -> Iterator[list[int]]:
    """Count connections but our own all the time; yields the most seen, to Postgres and to Redis."""
    peak, stopped = [0, 0], threading.Event()
    with psycopg.connect(url, autocommit=True) as probe:
        ours = _connections(probe, services)

        def watch() -> None:
            while not stopped.wait(0.01):
                now = _connections(probe, services)
                peak[:] = [max(most, len(all_ - mine)) for most, all_, mine in zip(peak, now, ours, strict=True)]

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield peak
        finally:
            stopped.set()
            watcher.join(DEADLINE_S)


def _connections(probe: psycopg.Connection, services: Services) -> tuple[set[object], set[object]]:
    rows = probe.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'onelane'").fetchall()
    return {row[0] for row in rows}, {client["id"] for client in services.lanes.client.client_list()}


def _check_turns_ran_in_order(log: Path) -> None:
    """Look at the handler's own notes, written by whichever process ran it."""
    ran: dict[str, list[int]] = {}
    for line in log.read_text().splitlines():
        user, seq, _ = line.rsplit(" ", 2)
        ran.setdefault(user, []).append(int(seq))
    assert len(ran) == USERS
    assert all(seqs == sorted(seqs) for seqs in ran.values())
