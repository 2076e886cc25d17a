"""Keys and rows that somebody else wrote, or spoilt: each delays its own lane at most, and no duty stops for them."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import redis

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.embedded import EmbeddedRedis
from onelane.lanes.lanes import Lanes
from onelane.lanes.scripts import connect
from onelane.model import Lease
from onelane.operations.snapshot import Survey
from onelane.processes.duties import Duties
from onelane.processes.reconciler import Reconciler
from onelane.processes.requeued import Requeued
from tests.conftest import Accept, LogLines, RunWorker, eventually, slow_after
from tests.duties import duties_of
from tests.odd import CATALOGUE, VALUES, WORKER, Plant, is_a_users, key_of, plants_for
from tests.renewing import renewed
from tests.rows import Rows

OF_EACH_USER = sum(map(is_a_users, CATALOGUE))
OF_USERS = {
    f"{pattern}: {name}": (pattern, plant)
    for pattern in filter(is_a_users, CATALOGUE)
    for name, plant in plants_for(pattern)
}
OF_ALL: Mapping[str, Callable[[redis.Redis], object]] = {
    "of another type": lambda client: (
        [
            client.hset(key, "some", "thing")
            for key in (keys.FENCE, keys.wake(), keys.lanes(), keys.buried(), keys.RQ_QUEUES, keys.reconcile_cursor())
        ]
        + [client.set(key, "mine") for key in (keys.NUMBERS, keys.RQ_WORKERS, keys.HEARTBEATS)]
    ),
    "with odd values": lambda client: [
        client.set(keys.FENCE, "12e9"),
        client.zadd(keys.lanes(), {b"nobody": 0, b"\xff\xfe": 0, b"": 0, str(uuid4()).encode(): 0}),
        client.zadd(keys.buried(), {b"nobody": 0, b"\xff": 0, b"no body": 0}),
        client.set(keys.reconcile_cursor(), "nobody"),
        client.hset(keys.NUMBERS, "onelane_turns:committed", "many"),
        client.sadd(keys.RQ_WORKERS, "rq:worker:odd", "rq:worker:text"),
        client.hset("rq:worker:odd", "last_heartbeat", "never"),
        client.set("rq:worker:text", "mine"),
    ],
    "that never end": lambda client: [client.set(key, "mine") for key in (keys.reconciled(), keys.duty("duties"))],
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    channel = settings.channels["demo"].model_copy(update={"rate_per_minute": 6_000})
    return settings.model_copy(
        update={"handler": "tests.bots:handle", "attempts_max": 2, "channels": {"demo": channel}}
    )


def test_every_odd_value_is_of_a_key_in_the_catalogue() -> None:
    assert set(VALUES) <= set(CATALOGUE)
    assert len(CATALOGUE) > 20


class Life:
    """A lane's life, step by step, with one thing put under one key before each step; a neighbour lives beside it."""

    def __init__(self, client: redis.Redis, pattern: str, plant: Plant) -> None:
        self.lanes = Lanes(client)
        self.client = client
        self.odd, self.neighbour = (uuid4(), uuid4()), (uuid4(), uuid4())
        self._key, self._plant = key_of(pattern, *self.odd), plant
        self.call = 0

    def __call__(self) -> Lanes:
        """Put the thing there once more."""
        self.client.delete(self._key)
        self._plant(self.client, self._key)
        return self.lanes

    def lease(self) -> dict[UUID, Lease]:
        self.call += 1
        return {lease.user_id: lease for lease in self().lease(WORKER, self.call, 8, 60).leases}

    def work(self) -> dict[UUID, Lease]:
        """Live; return the leases of the last time, of whoever got one. Nothing in it may fail."""
        for user, message in (self.odd, self.neighbour):
            self().enqueue(user, message)
        for _ in range(2):
            leases = self.lease()
            lost = renewed(self(), leases.values(), 60, WORKER)
            assert not {lease.token for user, lease in leases.items() if user == self.neighbour[0]} & lost
            for user, message in (self.odd, self.neighbour):
                lease = leases.get(user)
                if lease:
                    self().bury(lease, message, "Traceback: …")
                    self().requeued(self().buried_users())
                    self().enqueue(user, message)
                    self().park(lease, 0, pace_ms=100, runs=1)
                self().pause(user)
                self().make_due(user, unpause=True)
                self().discard(user, uuid4())
                self().jobs(user)
                self().forget_session(user)
            self().scores([self.odd[0], self.neighbour[0]])
            self().bring_back([self.odd[0], self.neighbour[0]])
            self.for_all()
        leases = self.lease()
        for user, message in (self.odd, self.neighbour):
            if user in leases:
                self().finish(leases[user], [message], session_id=uuid4(), session_ms=1_000, pace_ms=100, runs=1)
        return leases

    def for_all(self) -> None:
        self().pass_wake_on()
        self().raise_fence(1)
        self().add_numbers(WORKER, self.call, {"onelane_turns:committed": 1})
        marks = self().marks
        marks.claim_duty("duties", WORKER, 1)
        marks.is_reconciled(1)
        marks.move_cursor(marks.cursor(), uuid4(), WORKER)
        marks.put_cursor_back(uuid4())
        self()
        marks.cursor()
        marks.note_reconciled(1)
        self().probe()
        Survey(self()).numbers_and_snapshot()
        json.dumps(Survey(self()).snapshot(100).model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize("pattern", slow_after(OF_EACH_USER, sorted(CATALOGUE, key=is_a_users, reverse=True)))
def test_whatever_stands_under_a_key_no_script_fails_and_no_neighbour_waits(
    redis_server: EmbeddedRedis, pattern: str
) -> None:
    client = connect(redis_server.url, timeout_s=3, wait_s=3, connections_max=4)
    for name, plant in plants_for(pattern):
        client.flushall()
        life = Life(client, pattern, plant)
        leases = life.work()
        if is_a_users(pattern):
            assert set(leases) == {life.odd[0], life.neighbour[0]}, name
    client.close()


def test_odd_keys_of_users_stop_neither_them_nor_others(
    services: Services, settings: Settings, accept: Accept, run_worker: RunWorker, rows: Rows
) -> None:
    """Two messages each: one that fails and is buried, one that is answered. Half are odd before, half after."""
    odd = {name: rows.make_user("demo", name) for name in OF_USERS}

    def plant(*, first: bool) -> None:
        for place, (name, user) in enumerate(odd.items()):
            if first is (place % 2 == 0):
                pattern, plant = OF_USERS[name]
                key = key_of(pattern, user, uuid4())
                services.lanes.client.delete(key)
                plant(services.lanes.client, key)

    plant(first=True)
    for name in (*odd, "innocent"):
        accept(name, "raise")
        accept(name, "after")
    plant(first=False)
    Survey(services.lanes).numbers_and_snapshot()
    with run_worker(settings):
        eventually(lambda: rows.waiting() == 0)
        eventually(lambda: not services.lanes.client.exists(keys.lanes()))
    for user in odd.values():
        assert rows.states(user) == ["dead", "processed"]


@pytest.mark.parametrize("kind", OF_ALL)
def test_odd_keys_of_all_stop_nobody(
    services: Services, settings: Settings, accept: Accept, run_worker: RunWorker, rows: Rows, kind: str
) -> None:
    """The reconciler, too, has to find who waits: Redis has forgotten them once."""
    client = services.lanes.client
    OF_ALL[kind](client)
    for nr in range(3):
        accept(f"user {nr}", "raise")
        accept(f"user {nr}", "after")
    client.flushall()
    OF_ALL[kind](client)
    Survey(services.lanes).numbers_and_snapshot()
    with run_worker(settings):
        eventually(lambda: rows.waiting() == 0)
    assert rows.answered() == 3


def test_an_odd_lock_costs_a_worker_that_lease_alone(
    services: Services,
    settings: Settings,
    accept: Accept,
    run_worker: RunWorker,
    log_lines: LogLines,
    rows: Rows,
    tmp_path: Path,
) -> None:
    """The renewal of all leases of the process failed, again and again."""
    gate = tmp_path / "gate"
    odd, other = accept("odd", f"wait {gate}"), accept("other", f"wait {gate}")
    client = services.lanes.client
    with run_worker(settings.model_copy(update={"lock_ttl_s": 4})):
        eventually(lambda: client.exists(keys.lock(odd.user_id)) and client.exists(keys.lock(other.user_id)))
        client.delete(keys.lock(odd.user_id))
        client.set(keys.lock(odd.user_id), "mine")
        eventually(lambda: any(line["event"] == "lease_lost" for line in log_lines))
        gate.touch()
        eventually(lambda: rows.is_settled(odd.user_id) and rows.is_settled(other.user_id))
    lost = [str(line["user_id"]) for line in log_lines if line["event"] == "lease_lost"]
    assert lost == [str(odd.user_id)]
    assert [line for line in log_lines if line["event"] == "renewer_died"] == []


@pytest.fixture
def duties(services: Services) -> Duties:
    return duties_of(services)


@pytest.mark.parametrize("broken", ["redrive", "reconcile", "sweep", "forget_deliveries"])
def test_a_duty_that_fails_is_reported_and_the_others_are_done(
    services: Services, duties: Duties, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    done: list[str] = []

    def act(name: str) -> None:
        done.append(name)
        if name == broken:
            raise ValueError("text")

    for owner, name in [(Requeued, "redrive"), (Reconciler, "reconcile")]:
        monkeypatch.setattr(owner, name, lambda _, name=name: act(name))
    for name in ("sweep", "forget_deliveries"):
        monkeypatch.setattr(duties, name, lambda name=name: act(name))
    services.lanes.client.zadd(keys.buried(), {"somebody dead": 0})
    duties.round()
    assert done == ["redrive", "redrive", "reconcile", "reconcile", "sweep", "forget_deliveries"], "of each kind"
    lines = [line for line in log_lines if line["event"] == "duty_failed"]
    assert [line["duty"] for line in lines] == done.count(broken) * [broken]
    assert all(line["failure"].endswith("ValueError") for line in lines)


def test_a_session_that_cannot_be_swept_is_reported_and_the_others_end(
    services: Services, rows: Rows, duties: Duties, log_lines: LogLines
) -> None:
    odd, other = rows.make_user("odd", "alice"), rows.make_user("demo", "bob")
    rows.publish("odd", 60, time(4), "Nowhere/Atlantis")
    for user in (odd, other):
        rows.make_session(user, datetime.now(UTC) - timedelta(days=2))
    for _ in range(2):
        duties.round()
        services.lanes.client.delete(keys.duty("duties"))
    assert rows.sessions(other)[0].status == "ended"
    assert rows.sessions(odd)[0].status == "active"
    [line] = [line for line in log_lines if line["event"] == "session_not_swept"]
    assert (line["user_id"], line["sqlstate"]) == (str(odd), "22023")


def test_a_requeued_job_that_cannot_be_redriven_is_reported_and_the_others_are(
    services: Services, accept: Accept, rows: Rows, duties: Duties, log_lines: LogLines
) -> None:
    odd, other = accept("alice"), accept("bob")
    for lease in services.lanes.lease("w", 0, 2, 60).leases:
        message = odd if lease.user_id == odd.user_id else other
        rows.settle(message.user_id, message.seq, state="dead")
        services.lanes.bury(lease, message.message_id, "Traceback: …")
        services.lanes.finish(lease)
        services.lanes.client.rpush(keys.queue(message.user_id), str(message.message_id))
    services.lanes.client.rpush(keys.queue(odd.user_id), uuid4().urn)
    rows.publish("odd", 60, time(4), "Nowhere/Atlantis")
    rows.set_channel(odd.user_id, "odd")
    assert duties.redrive_requeued() == 1
    assert rows.states(other.user_id) == ["received"]
    assert [line["user_id"] for line in log_lines if line["event"] == "lane_failed"] == [str(odd.user_id)]
