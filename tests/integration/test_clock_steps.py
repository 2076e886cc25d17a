"""Redis' clock is set back or ahead, by its host or by a fail-over: no lane waits for it, and no message is blamed."""

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import redis

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.lanes import clock
from onelane.lanes.clock import LanesClock
from onelane.lanes.lanes import Lanes
from onelane.lanes.releases import Released
from onelane.lanes.renewer import renew
from onelane.lanes.scripts import SCRIPTS, Scripts, text_of
from onelane.model import Lease
from onelane.operations.snapshot import Survey
from tests.conftest import Accept, LogLines, RunWorker, eventually
from tests.lane_state import is_leased
from tests.rows import Rows
from tests.stepping import SteppingRedis

HOUR_S = 3_600
TTL_S = 15
STEPS = pytest.mark.parametrize(
    "steps", [[-HOUR_S], [HOUR_S], [-10], [10], [-HOUR_S, -HOUR_S], [HOUR_S, -HOUR_S]], ids=str
)
calls = count()


class Process:
    """A web process, or a worker with its helper, in so far as they call the lanes."""

    def __init__(self, server: SteppingRedis, name: str) -> None:
        self.name = name
        self.lanes = Lanes(redis.Redis.from_url(server.url))
        self._renewals = LanesClock()

    def lease(self, ttl_s: float = TTL_S) -> list[Lease]:
        return list(self.lanes.lease(self.name, next(calls), 10, ttl_s).leases)

    def renew(self, lease: Lease) -> list[str]:
        """Return what is lost."""
        return renew(self.lanes.scripts, self.name, {lease.token: str(lease.user_id)}, TTL_S, self._renewals)[1]

    def due_in_s(self, user: UUID) -> float:
        [score] = self.lanes.scores([user])
        assert score is not None
        return (score - clock.read_ms(self.lanes.scripts)) / 1000


@pytest.fixture(scope="module")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SteppingRedis]:
    with SteppingRedis(tmp_path_factory.mktemp("stepping") / "data") as server:
        yield server


@pytest.fixture
def server(stepping: SteppingRedis) -> SteppingRedis:
    """Empty, with the right time."""
    stepping.step(-stepping.offset_s)
    redis.Redis.from_url(stepping.url).flushall()
    return stepping


@pytest.fixture
def web(server: SteppingRedis) -> Process:
    return Process(server, "web")


@pytest.fixture
def a(server: SteppingRedis) -> Process:
    """A worker that has called before."""
    return _at_work(Process(server, "a"))


@pytest.fixture
def b(server: SteppingRedis) -> Process:
    return _at_work(Process(server, "b"))


def _at_work(worker: Process) -> Process:
    worker.lease()
    return worker


def _write(web: Process) -> UUID:
    user = uuid4()
    web.lanes.enqueue(user, uuid4())
    return user


def _taken(worker: Process) -> list[UUID]:
    return [lease.user_id for lease in worker.lease()]


# lanes without a holder


@STEPS
def test_a_step_delays_no_lane_that_waits(server: SteppingRedis, web: Process, a: Process, steps: list[int]) -> None:
    before = _write(web)
    for step in steps:
        server.step(step)
        after = _write(web)
        assert set(_taken(a)) == {before, after}
        before = _write(web)
    assert Survey(web.lanes).snapshot().oldest_wait_s < TTL_S
    assert _taken(a) == [before]


@STEPS
def test_a_parked_lane_waits_as_long_as_it_was_to(
    server: SteppingRedis, web: Process, a: Process, steps: list[int]
) -> None:
    user = _write(web)
    [lease] = a.lease()
    a.lanes.park(lease, 60)
    for step in steps:
        server.step(step)
        assert _taken(a) == []
        assert 60 - TTL_S < a.due_in_s(user) <= 61


@STEPS
def test_what_was_set_between_a_step_and_the_next_lease_is_right_afterwards(
    server: SteppingRedis, web: Process, a: Process, steps: list[int]
) -> None:
    parked, released, paced, held_up = users = [_write(web) for _ in range(4)]
    leases = {lease.user_id: lease for lease in a.lease()}
    assert set(leases) == set(users)
    a.lanes.park(leases[held_up], 2 * HOUR_S)
    for step in steps:
        server.step(step)
    a.lanes.park(leases[parked], 60)
    assert a.lanes.finish(leases[released], has_more=True) is Released.RELEASED
    a.lanes.finish(leases[paced], has_more=True, pace_ms=60_000, runs=1)
    web.lanes.enqueue(held_up, uuid4())
    assert released in _taken(a)
    assert 60 - TTL_S < a.due_in_s(parked) <= 61
    assert a.due_in_s(paced) <= 61
    assert 2 * HOUR_S - TTL_S < a.due_in_s(held_up) <= 2 * HOUR_S + 1


@STEPS
def test_a_paused_lane_stays_paused_and_is_due_when_it_is_resumed(
    server: SteppingRedis, web: Process, a: Process, steps: list[int]
) -> None:
    user = _write(web)
    web.lanes.pause(user)
    for step in steps:
        server.step(step)
        assert _taken(a) == []
    server.step(steps[0])
    web.lanes.make_due(user, unpause=True)
    assert _taken(a) == [user]


@STEPS
def test_the_rate_limit_delays_a_lane_by_its_pace_and_not_by_the_step(
    server: SteppingRedis, web: Process, a: Process, steps: list[int]
) -> None:
    user = _write(web)
    [lease] = a.lease()
    a.lanes.finish(lease, has_more=True, pace_ms=30_000, runs=4)
    assert 0 < a.due_in_s(user) <= 91
    for step in steps:
        server.step(step)
        assert _taken(a) == []
        assert a.due_in_s(user) <= 91


# lanes with a holder


@STEPS
def test_a_living_holder_keeps_its_lane(
    server: SteppingRedis, web: Process, a: Process, b: Process, steps: list[int]
) -> None:
    _write(web)
    [lease] = a.lease()
    for step in steps:
        assert a.renew(lease) == []
        server.step(step)
        assert b.lease() == []
        assert a.renew(lease) == []
        assert b.lease() == []
        assert a.due_in_s(lease.user_id) <= TTL_S + 1
    assert a.lanes.finish(lease, has_more=True, may_go_on=True) is Released.GO_ON


@STEPS
def test_a_renewal_before_the_next_lease_keeps_the_lane_as_well(
    server: SteppingRedis, web: Process, a: Process, b: Process, steps: list[int]
) -> None:
    _write(web)
    [lease] = a.lease()
    a.renew(lease)
    for step in steps:
        server.step(step)
        assert a.renew(lease) == []
        assert a.due_in_s(lease.user_id) <= TTL_S + 1
        assert b.lease() == []


@STEPS
def test_a_dead_holders_lane_is_due_within_a_lease_and_its_message_is_not_blamed(
    server: SteppingRedis, web: Process, a: Process, b: Process, steps: list[int]
) -> None:
    user = _write(web)
    a.lease(ttl_s=1)
    b.lease(ttl_s=1)
    for step in steps:
        server.step(step)
        b.lease(ttl_s=1)
    [taken] = eventually(lambda: b.lease(ttl_s=1), within_s=10)
    assert (taken.user_id, taken.taken_over) == (user, False)


def test_a_death_after_a_step_counts(server: SteppingRedis, web: Process, a: Process, b: Process) -> None:
    server.step(HOUR_S)
    b.lease(ttl_s=1)
    calm_ms = clock.read_ms(b.lanes.scripts) + 500
    eventually(lambda: clock.read_ms(b.lanes.scripts) > calm_ms)
    user = _write(web)
    a.lease(ttl_s=1)
    [taken] = eventually(b.lease)  # of its time to live, in which a stall of this machine is no step
    assert (taken.user_id, taken.taken_over) == (user, True)


# what is no step


def test_time_without_a_worker_has_passed(server: SteppingRedis, web: Process, a: Process) -> None:
    user = _write(web)
    [lease] = a.lease()
    a.lanes.park(lease, 60)
    server.step(HOUR_S)  # as if an hour had passed
    later = _write(web)
    assert _taken(Process(server, "b")) == [user, later]
    assert Survey(web.lanes).snapshot().oldest_wait_s < TTL_S
    assert not redis.Redis.from_url(server.url).exists(keys.UNSURE)


def test_time_in_which_a_worker_did_not_call_has_passed(
    server: SteppingRedis, web: Process, a: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = _write(web)
    [lease] = a.lease()
    a.lanes.park(lease, 60)
    now_ms = clock.monotonic_ms
    server.step(HOUR_S)
    monkeypatch.setattr(clock, "monotonic_ms", lambda: now_ms() + HOUR_S * 1000)
    assert _taken(a) == [user]


# where the clock is kept


def test_a_redis_that_lost_the_lanes_clock_learns_it_from_a_worker(
    server: SteppingRedis, web: Process, a: Process
) -> None:
    server.step(-HOUR_S)
    _taken(a)
    user = _write(web)
    [lease] = a.lease()
    a.lanes.park(lease, 60)
    redis.Redis.from_url(server.url).delete(keys.INSTANCE)
    assert _taken(a) == []
    assert 60 - TTL_S < a.due_in_s(user) <= 61


@pytest.mark.parametrize("step", [-HOUR_S, HOUR_S])
def test_an_empty_redis_with_another_clock_goes_on(server: SteppingRedis, web: Process, a: Process, step: int) -> None:
    _write(web)
    a.lease()
    server.step(step)
    redis.Redis.from_url(server.url).flushall()
    user = _write(web)
    assert _taken(a) == [user]


@pytest.mark.parametrize("value", ["soon", "nan", "1e400", "-1", "999999999999999", "9" * 40, ""])
@pytest.mark.parametrize("field", ["offset", "seen", "slack", "calm"])
def test_what_somebody_wrote_into_the_clock_stops_nothing(
    server: SteppingRedis, web: Process, a: Process, field: str, value: str
) -> None:
    redis.Redis.from_url(server.url).hset(keys.INSTANCE, field, value)
    user = _write(web)
    assert _taken(a) == [user]


@pytest.mark.parametrize("key", [keys.INSTANCE, keys.UNSURE])
def test_a_clock_of_another_type_is_replaced(server: SteppingRedis, web: Process, a: Process, key: str) -> None:
    redis.Redis.from_url(server.url).delete(key)
    redis.Redis.from_url(server.url).set(key, "mine")
    server.step(HOUR_S)
    user = _write(web)
    assert _taken(a) == [user]


# what no clock of ours set


def test_a_lane_further_ahead_than_anything_we_set_is_made_due(server: SteppingRedis, web: Process, a: Process) -> None:
    ahead, parked, paused = [_write(web) for _ in range(3)]
    leases = {lease.user_id: lease for lease in a.lease()}
    a.lanes.park(leases[parked], HOUR_S)
    a.lanes.finish(leases[paused], has_more=True, pause=True)
    a.lanes.finish(leases[ahead], has_more=True)
    web.lanes.client.zadd(keys.lanes(), {str(ahead): 9e15})
    assert clock.call_back(a.lanes.scripts, 2 * HOUR_S) == 1
    assert _taken(a) == [ahead]


def test_a_lock_that_ends_later_than_any_lease_holds_nothing(server: SteppingRedis, web: Process, a: Process) -> None:
    user = _write(web)
    web.lanes.client.hset(keys.lock(user), mapping={"token": "mine", "until": "9000000000000000"})
    [taken] = a.lease()
    assert (taken.user_id, taken.taken_over) == (user, False)


# the rules see what they are to see

PLANTED = {
    "Redis' own clock": ("local OFFSET, SEEN, SLACK = whole", "local OFFSET, SEEN, SLACK = 0, nil, 0 or whole"),
    "no worker knows better": ("if known and SEEN and shown", "if false and shown"),
    "what was set since stays": ("if step > slack then take_back", "if false then take_back"),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_moves_a_parked_lane_by_the_step(
    server: SteppingRedis, web: Process, a: Process, tmp_path: Path, bug: str
) -> None:
    right, wrong = PLANTED[bug]
    shutil.copytree(SCRIPTS, tmp_path / "lua")
    prelude = tmp_path / "lua" / "prelude.lua"
    assert prelude.read_text().count(right) == 1
    prelude.write_text(prelude.read_text().replace(right, wrong))
    for process in (web, a):
        process.lanes.scripts = Scripts(process.lanes.client, tmp_path / "lua")
    before, after = _write(web), _write(web)
    leases = {lease.user_id: lease for lease in a.lease()}
    a.lanes.park(leases[before], 60)
    server.step(HOUR_S)
    a.lanes.park(leases[after], 60)
    taken = _taken(a)
    server.step(-HOUR_S)
    taken += _taken(a)
    waits_s = [a.due_in_s(user) for user in (before, after)]
    assert taken or max(waits_s) > 61


# the whole service


@pytest.fixture
def settings(settings: Settings, server: SteppingRedis) -> Settings:
    return settings.model_copy(update={"redis_url": server.url, "handler": "tests.bots:handle", "lock_ttl_s": 3})


@pytest.mark.parametrize("step", [-HOUR_S, HOUR_S])
def test_a_service_goes_on_over_a_step_and_blames_nobody(
    server: SteppingRedis,
    settings: Settings,
    services: Services,
    rows: Rows,
    accept: Accept,
    run_worker: RunWorker,
    log_lines: LogLines,
    tmp_path: Path,
    step: int,
) -> None:
    with run_worker(settings):
        accept("dora")
        eventually(lambda: rows.answered() == 1 and not rows.ask("SELECT count(*) AS n FROM outbox").n)
        held = accept("alice", f"wait {tmp_path / 'go'}")
        eventually(lambda: is_leased(services, held.user_id))
        # A step in the second of anybody's first call counts as time: both lanes have made theirs, let the helper, too.
        worker = services.lanes.client.hget(keys.lock(held.user_id), "worker") or b""
        eventually(lambda: services.lanes.client.exists(keys.beat(text_of(worker))))
        accept("bob", "raise-until 2")
        server.step(step)
        accept("carol")
        eventually(lambda: rows.answered() == 3)
        (tmp_path / "go").touch()
        eventually(lambda: rows.answered() == 4)
    names = [line["event"] for line in log_lines]
    assert "clock_stepped" in names
    assert not {"lease_lost", "lane_taken_over", "begin_fenced"} & set(names)
