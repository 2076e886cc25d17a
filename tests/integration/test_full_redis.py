"""Redis at maxmemory, with nothing to spare: what waits is found and worked off all the same, within bounds."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.request import Request, urlopen
from uuid import UUID, uuid4

import pytest
from redis import OutOfMemoryError, Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from onelane import keys
from onelane.bootstrap import Services
from onelane.channels import provider_of
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.dev.embedded import EmbeddedRedis
from onelane.errors import LanesUnavailable
from onelane.lanes import jobs, releases
from onelane.lanes.lanes import Lanes
from onelane.lanes.releases import Released
from onelane.model import Lease
from onelane.operations.snapshot import Survey
from onelane.processes.duties import Duties
from onelane.processes.reconciler import LAP_EVERY_S
from onelane.turns.idle import release_idle
from onelane.turns.records import Records
from tests import loops
from tests.conftest import Accept, LogLines, RunWorker, eventually
from tests.duties import duties_of
from tests.lane_state import cached_session, failed_jobs
from tests.processes import web_process, worker_process
from tests.renewing import renewed
from tests.rows import Rows

USERS = 6
CROWD = 500
DUE_MAX = 1_000
"""DUE_WHEN_FULL_MAX of prelude.lua."""


@pytest.fixture
def fill(services: Services) -> Iterator[Callable[[], object]]:
    """Fill Redis up: with this limit whatever may allocate is refused, as at maxmemory."""
    client = services.lanes.client
    client.ping()  # connected before, as a worker is
    yield lambda: client.config_set("maxmemory", 1)
    client.config_set("maxmemory", 0)


@pytest.fixture
def duties(services: Services) -> Duties:
    return duties_of(services)


def _lease_all(lanes: Lanes, call: int) -> dict[UUID, Lease]:
    return {lease.user_id: lease for lease in lanes.lease("worker", call, USERS, 60).leases}


def test_a_full_redis_lets_every_script_run(services: Services, fill: Callable[[], object]) -> None:
    lanes, users = services.lanes, [UUID(int=nr) for nr in range(1, 6)]
    for user in users:
        lanes.enqueue(user, user)
    held = _lease_all(lanes, 0)
    fill()
    assert lanes.enqueue(users[0], UUID(int=99)) is False
    assert lanes.jobs(users[0]) == [str(users[0])]
    assert renewed(lanes, held.values(), 60) == set()
    assert (
        lanes.finish(held[users[0]], has_more=True, may_go_on=True, session_id=users[0], session_ms=9) is Released.GO_ON
    )
    assert lanes.finish(held[users[0]], [users[0]], session_id=users[0], pace_ms=9) is Released.RELEASED
    assert lanes.park(held[users[1]], 0)
    assert lanes.bury(held[users[2]], users[2], "Traceback: …")
    assert lanes.finish(held[users[2]], session_id=users[2], session_ms=9) is Released.FORGOTTEN
    assert lanes.pause(users[1])
    assert lanes.make_due(users[1], unpause=True)
    assert lanes.raise_fence(held[users[1]].fence + 1_000) == held[users[1]].fence + 1_000
    assert set(_lease_all(lanes, 1)) == set(users[:2])
    lanes.discard(users[3], users[3])
    assert lanes.requeued([users[2]]) == []
    assert lanes.bring_back([users[2]]) == [True]
    lanes.pass_wake_on()
    lanes.add_numbers("a test", 1, {"onelane_turns:committed": 7})
    assert Survey(lanes).numbers_and_snapshot()[0]["onelane_turns:committed"] == 7


def test_a_read_only_redis_is_away_and_not_full_and_no_connection_stays_with_it(services: Services) -> None:
    """After a fail-over behind one name, workers stayed with the replica until they were restarted."""
    services.lanes.client.replicaof("127.0.0.1", "1")
    try:
        for act in (
            lambda: services.lanes.enqueue(UUID(int=1), UUID(int=1)),
            lambda: services.lanes.make_due(UUID(int=1)),
            lambda: services.lanes.marks.note_reconciled(9),
            lambda: services.lanes.marks.claim_duty("duties", "a test", 9),
        ):
            connection = services.lanes.client.client_id()
            with pytest.raises(LanesUnavailable, match="refuses"):
                act()
            assert services.lanes.client.client_id() != connection
    finally:
        services.lanes.client.replicaof("NO", "ONE")


# lanes without jobs


def test_a_message_of_which_a_full_redis_takes_no_job_makes_its_lane_due_and_is_answered(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    run_worker: RunWorker,
    fill: Callable[[], object],
    log_lines: LogLines,
) -> None:
    fill()
    with run_worker(settings):
        for nr in range(USERS):
            accept(f"user {nr}", "one")
            accept(f"user {nr}", "two")
        eventually(lambda: rows.waiting() == 0, within_s=LAP_EVERY_S)
        eventually(lambda: not services.lanes.client.exists(keys.lanes()))
    assert rows.answered() == 2 * USERS
    assert services.lanes.client.keys("rq:job:*") == []
    assert services.lanes.client.keys("rq:queue*") == []
    assert {line["messages"] for line in log_lines if line["event"] == "redis_full"} == {1}


def test_what_comes_into_a_full_redis_while_its_lane_is_leased_is_not_forgotten_with_the_lease(
    services: Services, accept: Accept, fill: Callable[[], object]
) -> None:
    fill()
    first = accept("alice", "one")
    [lease] = services.lanes.lease("w", 0, 1, 60).leases
    accept("alice", "two")  # after Postgres was asked for more, and before the lease ends
    assert services.lanes.finish(lease, [first.message_id], may_go_on=True) is Released.GO_ON
    assert services.lanes.finish(lease, [first.message_id]) is Released.RELEASED
    [lease] = services.lanes.lease("w", 1, 1, 60).leases
    assert services.lanes.finish(lease) is Released.FORGOTTEN


def test_a_lane_without_a_job_is_as_good_as_another_for_operators(
    rows: Rows, services: Services, accept: Accept, duties: Duties, fill: Callable[[], object]
) -> None:
    fill()
    user_id = accept("alice").user_id
    services.acts.pause(user_id, by="ann")
    assert services.lanes.scores([user_id]) == [float("inf")]
    services.acts.resume(user_id, by="ann")
    snapshot = Survey(services.lanes).snapshot(rows=9)
    assert [(lane.user_id, lane.state, lane.jobs) for lane in snapshot.lanes] == [(str(user_id), "due", 0)]
    [lease] = services.lanes.lease("w", 0, 1, 60).leases
    rows.settle(user_id, 1)
    loops.run(release_idle(services.lanes, _records(services), lease))
    assert services.lanes.scores([user_id]) == [None]


def _records(services: Services) -> Records:
    return Records(services.settings, services.database, threading.Event())


def test_a_full_redis_keeps_no_cached_session(services: Services, accept: Accept, fill: Callable[[], object]) -> None:
    user_id = accept("alice").user_id
    [lease] = services.lanes.lease("w", 0, 1, 60).leases
    services.lanes.finish(lease, has_more=True, session_id=UUID(int=1), session_ms=60_000)
    assert cached_session(services, user_id) == str(UUID(int=1))
    fill()
    [lease] = services.lanes.lease("w", 1, 1, 60).leases
    services.lanes.finish(lease, session_id=UUID(int=2), session_ms=60_000)
    assert cached_session(services, user_id) is None


# bounds


def test_a_full_redis_gets_a_thousand_due_lanes_and_the_reconciler_adds_the_others_round_by_round(
    rows: Rows, services: Services, duties: Duties, fill: Callable[[], object]
) -> None:
    client, many = services.lanes.client, 4_500
    fill()
    services.lanes.enqueue_many([(uuid4(), uuid4()) for _ in range(DUE_MAX + 100)])
    assert client.zcard(keys.lanes()) == DUE_MAX
    assert services.lanes.make_due(uuid4()) is False
    client.delete(keys.lanes())
    rows.make_waiting_users(many)
    added, laps = 0, set()
    for _ in range(4):
        duties.round()
        client.delete(keys.duty("duties"))
        due = client.zrange(keys.lanes(), 0, -1)
        assert len(due) <= 2 * DUE_MAX
        added += len(due)
        laps |= set(due)
        client.delete(keys.lanes())  # worked off, but for the rows in Postgres
    assert len(laps) == many, "somebody was left out"
    assert added >= many
    assert not client.exists(keys.reconciled()), "a lap in a full Redis is followed by the next"
    client.delete(keys.reconcile_cursor())
    client.config_set("maxmemory", 0)
    while not client.exists(keys.reconciled()):
        duties._reconcilers[0].reconcile()
    assert client.zcard(keys.lanes()) == many


def test_a_full_redis_buries_nobody_and_the_dead_are_redriven_all_the_same(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    run_worker: RunWorker,
    fill: Callable[[], object],
) -> None:
    settings = settings.model_copy(update={"handler": "tests.bots:handle", "attempts_max": 1})
    message = accept("alice", "raise")
    fill()
    with run_worker(settings):
        eventually(lambda: rows.states(message.user_id) == ["dead"])
        eventually(lambda: not services.lanes.client.exists(keys.lanes()))
        assert services.lanes.client.keys("rq:*:*") == services.lanes.client.keys("rq:worker:*")
        assert not services.lanes.client.exists(keys.buried())
        rows.rewrite(message.message_id, "well again")
        assert services.acts.retry(message.message_id, by="ann").did
        eventually(lambda: rows.states(message.user_id) == ["processed"])


# the dead


def _bury(services: Services, accept: Accept, sender: str, failure: str = "Traceback: …") -> UUID:
    message = accept(sender)
    [lease] = services.lanes.lease("w", int(uuid4()), 1, 60).leases
    assert services.lanes.bury(lease, message.message_id, failure)
    services.lanes.finish(lease)
    return message.message_id


def test_redis_keeps_the_newest_dead_and_the_oldest_go_first(
    services: Services, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "BURIED_MAX", 3)
    dead = [_bury(services, accept, f"user {nr}") for nr in range(5)]
    client = services.lanes.client
    assert {job for job in dead if client.exists(keys.job(job), keys.results(job)) == 2} == set(dead[2:])
    assert client.zcard(keys.buried()) == len(client.keys("rq:failed:*")) == client.scard(keys.RQ_QUEUES) == 3
    assert len(services.lanes.buried_users()) == 3


def test_a_dead_message_that_rqs_tools_have_requeued_is_not_dropped_before_it_has_run(
    services: Services, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "BURIED_MAX", 1)
    first = _bury(services, accept, "alice")
    [user_id] = services.lanes.buried_users()
    failed_jobs(services, user_id).requeue(str(first))
    _bury(services, accept, "bob")
    assert services.lanes.requeued(services.lanes.buried_users()) == [(user_id, str(first))]


def test_a_dead_message_is_kept_in_redis_for_thirty_days_and_its_traceback_is_bounded(
    services: Services, accept: Accept
) -> None:
    job = _bury(services, accept, "alice", "x" * 100_000 + "ValueError")
    client = services.lanes.client
    [user_id] = services.lanes.buried_users()
    for key in (keys.job(job), keys.results(job), keys.failed(user_id)):
        assert 0 < client.ttl(key) <= 30 * 86_400
    [failed] = failed_jobs(services, user_id).get_job_ids()
    shown = Job.fetch(failed, connection=client, serializer=JSONSerializer).latest_result().exc_string
    assert shown.endswith("ValueError")
    assert len(shown) == jobs.FAILURE_MAX
    client.zadd(keys.buried(), {f"{user_id} {job}": 0})
    _bury(services, accept, "bob")
    assert not client.exists(keys.job(job), keys.results(job), keys.failed(user_id))


def test_the_dead_take_a_bounded_part_of_a_small_redis(services: Services, accept: Accept) -> None:
    before = services.lanes.client.info("memory")["used_memory"]
    for nr in range(100):
        _bury(services, accept, f"user {nr}", "\n".join(f"{uuid4()}" for _ in range(200)))
    kept = (services.lanes.client.info("memory")["used_memory"] - before) / 100
    print(f"\n{kept:.0f} bytes a dead message")  # noqa: T201 - for -s
    assert kept * releases.BURIED_MAX < 5e6


# real processes, on a Redis that others have filled


def _fill_with_foreign_keys(redis: Redis) -> None:
    with suppress(OutOfMemoryError):
        while True:
            redis.set(f"foreign:{uuid4()}", "x" * 500)


def _post_all(port: int, settings: Settings, numbers: range) -> None:
    """Let a provider deliver messages of every user, four at a time."""

    def post(user: int) -> None:
        for nr in numbers:
            delivery = Delivery(senders=(f"user {user}",), external_id=f"{user}-{nr}", text=f"hello {nr}")
            signed = provider_of(settings.channels["demo"]).sign("", delivery)
            request = Request(f"http://127.0.0.1:{port}/webhooks/demo", signed.body, dict(signed.headers))
            with urlopen(request, timeout=30) as answer:
                assert answer.status == 202

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(post, range(CROWD)))


@pytest.mark.slow
@pytest.mark.parametrize("maxmemory", [1, 4_000_000])
@pytest.mark.parametrize("is_full_from_the_start", [True, False], ids=["from the start", "while workers are away"])
def test_a_crowd_is_answered_in_order_over_a_redis_that_is_full(
    rows: Rows,
    services: Services,
    settings: Settings,
    tmp_path: Path,
    maxmemory: int,
    *,
    is_full_from_the_start: bool,
) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server, Redis.from_url(server.url) as redis, ExitStack() as started:
        settings = settings.model_copy(update={"redis_url": server.url})

        def fill() -> None:
            redis.config_set("maxmemory", maxmemory)
            _fill_with_foreign_keys(redis)

        if is_full_from_the_start:
            fill()
        port = started.enter_context(web_process(settings, tmp_path))
        if not is_full_from_the_start:
            _post_all(port, settings, range(1))
            fill()
            _post_all(port, settings, range(1, 4))
        before = redis.info("memory")["used_memory"]
        workers = [started.enter_context(worker_process(settings)) for _ in range(2)]
        provider = started.enter_context(ThreadPoolExecutor(1))
        posted = provider.submit(_post_all, port, settings, range(4) if is_full_from_the_start else range(0))
        eventually(lambda: rows.answered() > CROWD // 2)
        workers[0].kill()
        started.enter_context(worker_process(settings))
        posted.result()
        eventually(lambda: rows.waiting() == 0, within_s=120)
        grown = redis.info("memory")["used_memory"] - before
        print(f"\n{grown / 1e6:+.2f} MB while full")  # noqa: T201 - for -s
        assert grown < 2e6
        redis.delete(*redis.keys("foreign:*"), "foreign:")
        redis.config_set("maxmemory", 0)
        _post_all(port, settings, range(4, 5))
        eventually(lambda: rows.waiting() == 0)
        eventually(lambda: not redis.keys("lanes:*") and not redis.keys("lock:*") and not redis.keys("rq:queue*"))
        eventually(lambda: redis.exists(keys.reconciled()))
        assert redis.keys("rq:job:*") == []
    assert rows.answered() == 5 * CROWD
    assert rows.out_of_order() == []
