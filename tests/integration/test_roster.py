"""Who works, as the numbers, the doctor and the pages see it: also among thousands of dead names, and odd clocks."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from rq import worker_registration
from rq.utils import utcformat

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.lanes.roster import FORGOTTEN_MAX
from onelane.lanes.scripts import text_of
from onelane.operations.snapshot import HEARTBEAT_MAX_S, Survey
from onelane.processes import registration
from onelane_web.ops.rq_state import RqState
from tests.conftest import RunWorker, eventually

DEAD = 5_000


def test_living_workers_are_counted_among_thousands_of_dead_names(services: Services) -> None:
    client, roster = services.lanes.client, services.lanes.roster
    client.sadd(keys.RQ_WORKERS, *(keys.worker(f"dead {nr}") for nr in range(DEAD)))
    for name in ("one", "two"):
        roster.note(name)
        client.sadd(keys.RQ_WORKERS, keys.worker(name))
        client.hset(keys.worker(name), mapping={"state": "idle", "lanes": 2})
    assert [(one.name, one.lanes, one.is_alive) for one in Survey(services.lanes).snapshot().workers] == [
        ("one", 2, True),
        ("two", 2, True),
    ]
    assert [row["name"] for row in RqState(client).workers()] == ["one", "two"]

    roster.forget_dead()
    assert client.scard(keys.RQ_WORKERS) == 2
    assert DEAD < FORGOTTEN_MAX


def test_a_worker_is_alive_by_the_clock_of_redis_alone(
    services: Services, settings: Settings, run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = datetime.now(UTC) - timedelta(minutes=10)
    monkeypatch.setattr("onelane.processes.registration.now", lambda: behind)
    with run_worker(settings):
        [name] = eventually(lambda: services.lanes.client.smembers(keys.RQ_WORKERS))
        eventually(lambda: services.lanes.client.hget(name, "last_heartbeat") == utcformat(behind).encode())
        assert Survey(services.lanes).snapshot().workers_alive == 1
        [row] = RqState(services.lanes.client).workers()
        assert time.time() - datetime.fromisoformat(row["last_heartbeat"]).timestamp() < HEARTBEAT_MAX_S
    assert Survey(services.lanes).snapshot().workers == ()


def test_a_worker_that_is_silent_is_not_alive(services: Services) -> None:
    services.lanes.roster.note("one")
    services.lanes.client.zincrby(keys.HEARTBEATS, -(HEARTBEAT_MAX_S + 1) * 1000, "one")
    assert Survey(services.lanes).snapshot().workers_alive == 0


def test_a_lane_names_its_holder_alone(services: Services, settings: Settings) -> None:
    lane = keys.queue_name("a")
    key = worker_registration.WORKERS_BY_QUEUE_KEY % lane
    services.lanes.client.sadd(key, keys.worker("dead"))
    worker = registration.Registration(services.lanes.client, "one", services.lanes.roster.note)
    worker.beat([lane])
    worker.beat([lane])
    assert services.lanes.client.smembers(key) == {keys.worker("one").encode()}
    worker.withdraw()


def test_a_workers_slots_are_those_that_it_has_registered(services: Services) -> None:
    client, note = services.lanes.client, services.lanes.roster.note
    worker = registration.Registration(client, "one", note, slots={"in": 7, "out": 3})
    worker.beat([])
    note("two")
    client.hset(keys.worker("two"), "slots", "what somebody else has written")
    shown = {one.name: one.slots for one in Survey(services.lanes).snapshot().workers}
    assert shown == {"one": {"in": 7, "out": 3}, "two": {}}
    worker.withdraw()


@pytest.mark.slow
def test_a_beat_costs_the_same_however_many_lanes_are_at_hand(services: Services, settings: Settings) -> None:
    client = services.lanes.client
    worker = registration.Registration(client, "one", services.lanes.roster.note)
    lanes = [keys.queue_name(str(nr)) for nr in range(10_000)]
    most: list[tuple[int, int]] = []
    for nr in range(30):
        client.config_resetstat()
        worker.beat(lanes[nr * 100 : nr * 100 + 5_000])  # a hundred others at each
        calls = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
        most.append((calls["cmdstat_evalsha"], sum(calls.values())))
    assert max(most[1:])[0] == 1
    assert sum(inside for _, inside in most[1:]) / len(most[1:]) <= 4 * registration.JOINED_MAX + 20
    shown = text_of(client.hget(keys.worker("one"), "queues") or "").split(",")
    assert len(shown) <= registration.SHOWN_MAX
    assert {lane for lane in lanes if client.exists(worker_registration.WORKERS_BY_QUEUE_KEY % lane)} == set(shown)
    assert Survey(services.lanes).snapshot().workers[0].lanes == 5_000
    worker.withdraw()
    assert not client.keys("rq:workers:*")


def test_after_redis_lost_its_memory_the_worker_and_its_lanes_are_shown_again(services: Services) -> None:
    client, lane = services.lanes.client, keys.queue_name("a")
    worker = registration.Registration(client, "one", services.lanes.roster.note)
    for _ in range(2):
        for _ in range(2):
            worker.beat([lane])
        assert client.smembers(worker_registration.WORKERS_BY_QUEUE_KEY % lane) == {keys.worker("one").encode()}
        assert client.hget(keys.worker("one"), "queues") == lane.encode()
        assert client.smembers(keys.RQ_WORKERS) == {keys.worker("one").encode()}
        client.flushall()
    worker.withdraw()
