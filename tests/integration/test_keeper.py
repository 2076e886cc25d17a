"""Who renews a worker's leases when its helper process, itself, their wire or Redis fails; and what is lost then."""

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.lanes import helper
from onelane.lanes.keeper import Keeper
from onelane.model import JsonObject, Lease
from tests.conftest import DEADLINE_S, Accept, eventually
from tests.processes import renewer_of, worker_process
from tests.proxy import Proxy

Lines = list[MutableMapping[str, Any]]
Leases = Callable[[int], list[Lease]]
TTL_S = 2.0
calls = itertools.count()


def access(url: str) -> JsonObject:
    return {"url": url, "timeout_s": 0.5, "wait_s": 0.5, "connections_max": 1}


@pytest.fixture
def keeper(settings: Settings) -> Iterator[Keeper]:
    """A keeper that renews."""
    keeper = Keeper("ours", access(settings.redis_url), TTL_S, DEADLINE_S)
    keeper.start()
    yield keeper
    keeper.stop()
    assert keeper._helper.process.poll() is not None


@pytest.fixture
def lease(services: Services, accept: Accept) -> Leases:
    """Lease so many lanes."""

    def lease(lanes: int) -> list[Lease]:
        for _ in range(lanes):
            accept(f"user {next(calls)}")
        leased = services.lanes.lease("ours", next(calls), lanes, TTL_S).leases
        assert len(leased) == lanes
        return list(leased)

    return lease


class Watch:
    """What Redis has of leases, and whether another worker gets one."""

    def __init__(self, services: Services) -> None:
        self._lanes = services.lanes

    def until(self, lease: Lease) -> int:
        return int(self._lanes.client.hget(keys.lock(lease.user_id), "until") or 0)

    def beat_of(self, worker: str) -> int:
        return int(self._lanes.client.hget(keys.beat(worker), "last") or 0)

    def await_renewal(self, *leases: Lease, times: int = 1) -> None:
        """Wait until all of `leases` were renewed, so many times after now."""
        for _ in range(times):
            self._await_one_renewal(leases)

    def _await_one_renewal(self, leases: Sequence[Lease]) -> None:
        before = [self.until(lease) for lease in leases]
        eventually(lambda: all(self.until(lease) > until for lease, until in zip(leases, before, strict=True)))

    def others_get(self) -> list[Lease]:
        """Lease as another worker does."""
        return list(self._lanes.lease("others", next(calls), 100, TTL_S).leases)

    def take_away(self, lease: Lease) -> None:
        """Give the lock to another, past all rules."""
        self._lanes.client.hset(keys.lock(lease.user_id), "token", "another's:1")


@pytest.fixture
def watch(services: Services) -> Watch:
    return Watch(services)


def events(lines: Lines, name: str) -> Lines:
    return [line for line in lines if line["event"] == name]


def await_replacement(keeper: Keeper, helper: subprocess.Popen[bytes]) -> None:
    eventually(lambda: keeper._helper.process is not helper)


def freeze(helper: subprocess.Popen[bytes]) -> None:
    helper.send_signal(signal.SIGSTOP)
    eventually(lambda: os.waitid(os.P_PID, helper.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# all is well


@pytest.mark.slow
def test_leases_live_as_long_as_they_are_held(keeper: Keeper, lease: Leases, watch: Watch, log_lines: Lines) -> None:
    kept, dropped = lease(2)
    _, holding = keeper.hold([kept, dropped])
    watch.await_renewal(kept, dropped, times=2)
    holding.close()
    assert eventually(watch.others_get)[0].user_id == dropped.user_id
    watch.await_renewal(kept)
    # A machine that stands still for half a lease looks like a clock that steps.
    assert {line["event"] for line in log_lines if line["log_level"] != "info"} <= {"clock_stepped"}


@pytest.mark.slow
def test_a_keeper_that_stops_renews_no_more(
    settings: Settings, lease: Leases, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "ENDS_S", DEADLINE_S)
    keeper = Keeper("ours", access(settings.redis_url), TTL_S, DEADLINE_S)
    keeper.start()
    leases = lease(2)
    keeper.hold(leases)
    keeper.stop()
    assert keeper._helper.process.poll() == 0
    assert len(eventually(watch.others_get)) == 2


@pytest.mark.slow
def test_a_worker_that_falls_silent_keeps_its_leases_for_a_while_and_is_not_heard(
    keeper: Keeper, lease: Leases, watch: Watch
) -> None:
    """Its helper would speak for a lease that it never heard of: the worker's death would count for nothing."""
    [kept] = lease(1)
    keeper.hold([kept])
    watch.await_renewal(kept)
    keeper._beats.stop(DEADLINE_S)
    watch.await_renewal(kept)
    heard = watch.beat_of("ours")
    watch.await_renewal(kept, times=2)
    assert watch.beat_of("ours") == heard


def test_a_platforms_signals_to_every_process_end_no_renewer(keeper: Keeper, lease: Leases, watch: Watch) -> None:
    leases = lease(1)
    keeper.hold(leases)
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        keeper._helper.process.send_signal(one)
    watch.await_renewal(*leases, times=2)
    assert keeper._helper.process.poll() is None


# what is lost


def test_a_lease_that_is_anothers_is_reported_once_and_cancels_its_turn(
    keeper: Keeper, lease: Leases, watch: Watch, log_lines: Lines
) -> None:
    lost, kept = lease(2)
    losing, keeping = keeper.hold([lost, kept])
    watch.take_away(lost)
    assert losing.cancelled.wait(DEADLINE_S)
    watch.await_renewal(kept, times=2)
    assert keeper.holdings == [keeping]
    assert not keeping.cancelled.is_set()
    [line] = events(log_lines, "lease_lost")
    assert (line["user_id"], line["fence"]) == (str(lost.user_id), lost.fence)


def test_a_lane_that_is_about_to_be_released_is_no_loss(
    keeper: Keeper, lease: Leases, watch: Watch, log_lines: Lines
) -> None:
    leaving, kept = lease(2)
    holding, _ = keeper.hold([leaving, kept])
    holding.is_leaving = True
    watch.take_away(leaving)
    watch.await_renewal(kept, times=3)
    assert not holding.cancelled.is_set()
    assert events(log_lines, "lease_lost") == []


def test_a_redis_that_forgets_everything_loses_every_lease(
    keeper: Keeper, lease: Leases, services: Services, log_lines: Lines
) -> None:
    holdings = keeper.hold(lease(3))
    services.lanes.client.flushall()
    for holding in holdings:
        assert holding.cancelled.wait(DEADLINE_S)
    assert len(events(log_lines, "lease_lost")) == 3
    assert keeper.holdings == []


@pytest.mark.slow
def test_a_redis_that_is_away_for_a_leases_life_loses_it_and_is_used_again(
    settings: Settings, lease: Leases, services: Services, watch: Watch, log_lines: Lines
) -> None:
    first, second = lease(1), lease(1)
    with Proxy(settings.redis_url) as proxy:
        keeper = Keeper("ours", access(proxy.url), TTL_S, DEADLINE_S)
        keeper.start()
        [holding] = keeper.hold(first)
        watch.await_renewal(*first)
        with proxy.refusing():
            eventually(lambda: events(log_lines, "renewal_failed"))
            assert holding.cancelled.wait(DEADLINE_S)
        services.lanes.client.hset(keys.lock(second[0].user_id), "until", 0)
        keeper.hold(second)
        watch.await_renewal(*second)
        keeper.stop()
    assert events(log_lines, "renewal_failed")[0]["leases"] == 1
    assert events(log_lines, "renewer_died") == []


# the helper process


def test_a_renewer_that_was_killed_is_replaced_before_a_lease_is_lost(
    keeper: Keeper, lease: Leases, watch: Watch, log_lines: Lines
) -> None:
    leases = lease(3)
    holdings = keeper.hold(leases)
    watch.await_renewal(*leases)
    first = keeper._helper.process
    first.kill()
    await_replacement(keeper, first)
    watch.await_renewal(*leases, times=2)
    assert watch.others_get() == []
    assert keeper.holdings == holdings
    [line] = events(log_lines, "renewer_died")
    assert line["exit_code"] == -signal.SIGKILL
    assert events(log_lines, "lease_lost") == []


@pytest.mark.slow
def test_a_wire_that_was_shut_down_is_replaced_with_its_renewer(
    keeper: Keeper, lease: Leases, watch: Watch, log_lines: Lines
) -> None:
    leases = lease(2)
    keeper.hold(leases)
    watch.await_renewal(*leases)
    first = keeper._helper.process
    keeper._helper._wire.shut_down()
    await_replacement(keeper, first)
    watch.await_renewal(*leases, times=2)
    assert first.poll() is not None
    assert len(events(log_lines, "renewer_died")) == 1
    assert events(log_lines, "lease_lost") == []


@pytest.mark.slow
def test_a_renewer_that_is_killed_again_and_again_is_replaced_each_time(
    keeper: Keeper, lease: Leases, watch: Watch, log_lines: Lines
) -> None:
    leases = lease(1)
    keeper.hold(leases)
    for _ in range(3):
        helper = keeper._helper.process
        helper.kill()
        await_replacement(keeper, helper)
        assert helper.returncode == -signal.SIGKILL, "no zombie is left"
    watch.await_renewal(*leases)
    assert len(events(log_lines, "renewer_died")) == 3


@pytest.mark.slow
def test_a_frozen_renewer_is_replaced_after_half_a_leases_life(
    keeper: Keeper, lease: Leases, watch: Watch, log_lines: Lines
) -> None:
    lost, kept = lease(2)
    losing, keeping = keeper.hold([lost, kept])
    watch.await_renewal(lost, kept)
    first = keeper._helper.process
    freeze(first)
    watch.take_away(lost)
    await_replacement(keeper, first)
    watch.await_renewal(kept, times=2)
    assert losing.cancelled.wait(DEADLINE_S)
    assert keeper.holdings == [keeping]
    assert events(log_lines, "renewer_silent") != []
    assert first.poll() == -signal.SIGKILL, "nothing goes on when it thaws"


@pytest.mark.slow
def test_without_a_renewer_that_answers_nothing_is_to_be_leased_and_no_beat_calls_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, log_lines: Lines
) -> None:
    working = helper.COMMAND
    monkeypatch.setattr(helper, "COMMAND", ("sleep", "600"))
    monkeypatch.setattr(helper, "STARTS_S", 0.5)
    beats: list[int] = []
    keeper = Keeper("ours", access(settings.redis_url), TTL_S, DEADLINE_S)
    keeper.start(lambda: beats.append(1))
    assert not keeper.can_renew
    eventually(lambda: len(events(log_lines, "renewer_silent")) > 1)
    assert beats == []
    monkeypatch.setattr(helper, "COMMAND", working)
    replaced = len(events(log_lines, "renewer_silent"))
    eventually(lambda: keeper.can_renew or len(events(log_lines, "renewer_silent")) > replaced)
    monkeypatch.setattr(helper, "STARTS_S", DEADLINE_S)
    eventually(lambda: keeper.can_renew and beats)
    keeper.stop()


def no_thread(*_: object, **__: object) -> None:
    raise RuntimeError("can't start new thread")


SYSTEM_GIVES_NONE = {
    "no process": ("COMMAND", ("/no/such/program",)),
    "no thread": ("threading", SimpleNamespace(Event=threading.Event, Thread=no_thread)),
}


@pytest.mark.parametrize(("name", "value"), SYSTEM_GIVES_NONE.values(), ids=SYSTEM_GIVES_NONE)
def test_while_no_renewer_can_be_started_nothing_is_to_be_leased_and_then_all_goes_on(
    name: str, value: object, keeper: Keeper, lease: Leases, watch: Watch, log_lines: Lines
) -> None:
    [kept] = lease(1)
    keeper.hold([kept])
    watch.await_renewal(kept)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(helper, name, value)
        keeper._helper.process.kill()
        eventually(lambda: not keeper.can_renew)
        eventually(lambda: events(log_lines, "renewer_not_started"))
        ended = keeper._helper
        assert ended.process.poll() is not None
        assert not keeper.can_renew
    eventually(lambda: keeper.can_renew)
    assert keeper._helper is not ended
    watch.await_renewal(kept)
    found = [line["event"] for line in log_lines if line["event"].startswith(("renewer", "task"))]
    assert found == ["renewer_died", "renewer_not_started"]


# the worker process


@pytest.mark.slow
def test_a_worker_that_is_stopped_loses_its_lanes_and_reports_it_when_it_goes_on(
    settings: Settings, accept: Accept, watch: Watch, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": TTL_S})
    accepted = accept("alice", f"wait {tmp_path / 'gate'}")
    log = tmp_path / "worker.log"
    with worker_process(settings, log=log, bot_log=tmp_path / "runs", stall_limit_s=600) as worker:
        eventually((tmp_path / "runs").exists)
        renewer = renewer_of(worker.pid)
        os.kill(worker.pid, signal.SIGSTOP)
        [taken] = eventually(watch.others_get)
        assert (taken.user_id, taken.taken_over) == (accepted.user_id, True)
        assert is_running(renewer)
        os.kill(worker.pid, signal.SIGCONT)
        eventually(lambda: "lease_lost" in log.read_text())


@pytest.mark.slow
def test_a_renewer_ends_with_its_worker_however_that_ends(
    settings: Settings, accept: Accept, watch: Watch, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": TTL_S})
    accept("alice", f"wait {tmp_path / 'gate'}")
    with worker_process(settings, bot_log=tmp_path / "runs") as worker:
        eventually((tmp_path / "runs").exists)
        renewer = renewer_of(worker.pid)
        os.kill(worker.pid, signal.SIGKILL)
        eventually(lambda: not is_running(renewer))
        assert len(eventually(watch.others_get)) == 1


@pytest.mark.slow
def test_a_killed_workers_lanes_are_taken_over_though_a_process_of_a_handler_keeps_its_wire(
    settings: Settings, accept: Accept, watch: Watch, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": TTL_S})
    accept("alice", f"fork {tmp_path / 'forked'}")
    with worker_process(settings, bot_log=tmp_path / "runs") as worker:
        eventually((tmp_path / "forked").exists)
        renewer = renewer_of(worker.pid)
        os.kill(worker.pid, signal.SIGKILL)
        assert len(eventually(watch.others_get)) == 1
        eventually(lambda: not is_running(renewer))


@pytest.mark.slow
def test_a_lease_that_lives_for_minutes_stalls_no_worker(settings: Settings) -> None:
    beats: list[int] = []
    keeper = Keeper("ours", access(settings.redis_url), ttl_s=600, stall_limit_s=2)
    keeper.start(lambda: beats.append(1))
    began = time.monotonic()
    eventually(lambda: len(beats) > 4)
    assert time.monotonic() - began < 4 * 2
    keeper.stop()


@pytest.mark.slow
def test_a_worker_that_sends_nothing_for_too_long_is_renewed_no_more(
    settings: Settings, lease: Leases, watch: Watch
) -> None:
    keeper = Keeper("ours", access(settings.redis_url), TTL_S, stall_limit_s=0.2)
    keeper.start()
    leases = lease(1)
    keeper.hold(leases)
    watch.await_renewal(*leases)
    keeper._beats.stop(DEADLINE_S)  # as if no thread of this process got the CPU
    assert [taken.user_id for taken in eventually(watch.others_get)] == [leases[0].user_id]
    keeper.stop()


def test_a_renewer_that_ends_as_it_starts_holds_up_no_worker(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "COMMAND", ("true",))
    monkeypatch.setattr(helper, "STARTS_S", 4 * DEADLINE_S)
    keeper, began = Keeper("ours", access(settings.redis_url), TTL_S, DEADLINE_S), time.monotonic()
    keeper.start()
    assert time.monotonic() - began < DEADLINE_S
    assert not keeper.can_renew
    keeper.stop()


def test_every_beat_calls_back(settings: Settings) -> None:
    beats: list[int] = []
    keeper = Keeper("ours", access(settings.redis_url), TTL_S, DEADLINE_S)
    keeper.start(lambda: beats.append(1))
    eventually(lambda: len(beats) > 2)
    keeper.stop()
