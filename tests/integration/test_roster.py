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
        client.hset(keys.worker(name), mapping={"state": "idle", "queues": "user:a,user:b"})
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
    monkeypatch.setattr("rq.worker.base.now", lambda: behind)
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
    assert services.lanes.client.smembers(key) == {keys.worker("one").encode()}
    worker.withdraw()
