"""Redis full, replies lost, workers idle: the lanes go on, and nobody polls."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from uuid import UUID, uuid4

import pytest
from redis.client import Monitor
from redis.exceptions import TimeoutError  # noqa: A004 - what its monitor raises
from rq.suspension import resume, suspend

from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.connection import Row
from onelane.dev.embedded import EmbeddedRedis
from onelane.errors import LanesUnavailable
from onelane.lanes.lanes import Lanes, Released
from onelane.model import Accepted, Delivery, Lease
from tests.conftest import DEADLINE_S, Accept, RunWorker, eventually, slow_after
from tests.proxy import Proxy
from tests.renewing import renewed
from tests.rows import Rows

Far = tuple[Services, Settings]

USERS = 6
POISON = "raise"
LONG = "sleep 0.8"
WORDS = ["hello", LONG, "hello", POISON, "hello", "raise-until 1", "hello"]
"""Something for each script: a long turn where it is to be renewed, failures that park, one that buries."""

IDLE_COMMANDS_MAX = 10
"""A second."""
IDLE_S = 2
numbers = itertools.count()


@pytest.fixture
def proxy(redis_server: EmbeddedRedis) -> Iterator[Proxy]:
    with Proxy(redis_server.url) as proxy:
        yield proxy


@pytest.fixture
def through_proxy(settings: Settings, proxy: Proxy, services: Services) -> Iterator[Far]:
    """Services and settings whose Redis is behind the proxy; all scripts are known to the server."""
    settings = settings.model_copy(
        update={"redis_url": proxy.url, "handler": "tests.bots:handle", "attempts_max": 2, "quantum_turns": 2}
    )
    for text in services.lanes.scripts._texts.values():
        services.lanes.client.script_load(text)
    far = open_services(settings)
    yield far, settings
    far.close()


def _digest(services: Services, script: str) -> bytes:
    return services.lanes.scripts._digests[script].encode()


def _accept(services: Services, sender: str, text: str) -> Accepted:
    delivery = Delivery(senders=(sender,), external_id=f"m{next(numbers)}", text=text)
    return services.intake.accept("demo", [delivery])[0]


# lost replies


@pytest.mark.parametrize("script", ["enqueue", "lease", "renew", "finish", "park", "bury", "due"])
@pytest.mark.parametrize("what", slow_after(1, ["drop_reply", "drop_request"]))
def test_one_lost_reply_or_request_costs_no_message_and_no_leases_life(
    rows: Rows, services: Services, through_proxy: Far, proxy: Proxy, run_worker: RunWorker, script: str, what: str
) -> None:
    far, settings = through_proxy
    fault = getattr(proxy, what)(_digest(services, script), nth=1 if script == "renew" else 2)
    with run_worker(settings):
        for text in WORDS:
            for nr in range(USERS):
                _accept(far, f"user {nr}", "hello" if text == LONG and script != "renew" else text)
        user_id = rows.user_of("demo", "user 0")
        far.lanes.make_due(user_id)
        far.lanes.make_due(user_id)
        assert fault.struck.wait(DEADLINE_S)
        eventually(lambda: rows.waiting() == 0)
    accepted = rows.accepted()
    replies = Counter((reply.user_id, reply.turn_seq) for reply in rows.answers())
    assert [(row.state, replies[row.user_id, row.seq]) for row in accepted] == [
        ("dead", 0) if word == POISON else ("processed", 1) for word in WORDS
    ] * USERS
    longest_s = _longest_stall_s(accepted)
    print(f"\n{what} {script}: longest gap between a user's turns {longest_s:.2f} s")  # noqa: T201 - for -s
    assert longest_s < settings.lock_ttl_s


def _longest_stall_s(accepted: list[Row]) -> float:
    """Find the longest time between two commits of one user; they come in the order of seq."""
    gaps = []
    for before, after in itertools.pairwise(accepted):
        if before.user_id == after.user_id:
            assert before.processed_at <= after.processed_at, "out of order"
            gaps.append((after.processed_at - before.processed_at).total_seconds())
    return max(gaps)


def test_redis_behind_a_black_hole_is_left_after_its_time_and_found_again(
    rows: Rows, services: Services, through_proxy: Far, proxy: Proxy, run_worker: RunWorker
) -> None:
    far, settings = through_proxy
    with run_worker(settings):
        _accept(far, "alice", "one")
        eventually(lambda: rows.waiting() == 0)
        with proxy.black_hole(), pytest.raises(LanesUnavailable):
            far.lanes.ping()
        _accept(services, "alice", "two")
        eventually(lambda: rows.waiting() == 0)


# a full Redis


@pytest.fixture
def fill(services: Services) -> Iterator[Callable[[], object]]:
    """Fill Redis up: with this limit whatever may allocate is refused, as at maxmemory."""
    client = services.lanes.client
    client.ping()  # connected before, as a worker is
    yield lambda: client.config_set("maxmemory", 1)
    client.config_set("maxmemory", 0)


def _lease_all(lanes: Lanes, call: int) -> dict[UUID, Lease]:
    return {lease.user_id: lease for lease in lanes.lease("worker", call, USERS, 60).leases}


def test_a_full_redis_refuses_new_jobs_and_lets_every_script_that_drains_run(
    services: Services, fill: Callable[[], object]
) -> None:
    lanes, users = services.lanes, [UUID(int=nr) for nr in range(1, 6)]
    for user in users:
        lanes.enqueue(user, user)
    held = _lease_all(lanes, 0)
    fill()
    with pytest.raises(LanesUnavailable, match="refuses"):
        lanes.enqueue(users[0], UUID(int=99))
    assert lanes.jobs(users[0]) == [str(users[0])]
    assert renewed(lanes, held.values(), 60) == set()
    assert (
        lanes.finish(held[users[0]], has_more=True, may_go_on=True, session_id=users[0], session_ms=9) is Released.GO_ON
    )
    assert lanes.finish(held[users[0]], [users[0]], session_id=users[0], session_ms=99, pace_ms=9) is Released.FORGOTTEN
    assert lanes.park(held[users[1]], 0)
    assert lanes.bury(held[users[2]], users[2], "Traceback: …")
    assert lanes.finish(held[users[2]], session_id=users[2], session_ms=9) is Released.FORGOTTEN
    assert lanes.pause(users[1])
    assert lanes.make_due(users[1], unpause=True)
    assert lanes.raise_fence(held[users[1]].fence + 1_000) == held[users[1]].fence + 1_000
    assert list(_lease_all(lanes, 1)) == [users[1]]
    lanes.discard(users[3], users[3])
    assert lanes.requeued([users[2]]) == []
    lanes.pass_wake_on()


def test_a_script_that_finds_redis_full_has_done_nothing(services: Services, fill: Callable[[], object]) -> None:
    client = services.lanes.client
    fill()
    before = client.dbsize()
    with pytest.raises(LanesUnavailable):
        services.lanes.enqueue(UUID(int=1), UUID(int=1))
    assert client.dbsize() == before
    assert not client.exists("lanes:in", "rq:queues")


def test_a_worker_drains_a_full_redis_while_intake_goes_on_accepting(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    run_worker: RunWorker,
    fill: Callable[[], object],
) -> None:
    for nr in range(USERS):
        accept(f"user {nr}", "sleep 0.3")
        accept(f"user {nr}", "two")
    with run_worker(settings.model_copy(update={"handler": "tests.bots:handle"})):
        client = services.lanes.client
        eventually(lambda: len(client.keys("lock:in:*")) == USERS)
        fill()
        eventually(lambda: rows.waiting() == 0)
        eventually(lambda: not client.exists("lanes:in"))
        late = [accept(f"user {nr}", "three") for nr in range(USERS)]
        assert all(not message.duplicate for message in late)
        assert not client.exists("lanes:in")
        client.config_set("maxmemory", 0)
        eventually(lambda: rows.waiting() == 0)


# wake-ups


def test_a_worker_starts_a_turn_within_milliseconds(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    with run_worker(settings):
        for nr in range(50):
            accept(f"user {nr}")
            eventually(partial(_have_been_answered, rows, nr + 1), every_s=0.002)
    waits_ms = rows.waits_ms()
    print(f"\naccepted to committed: median {median(waits_ms):.1f} ms, longest {max(waits_ms):.1f} ms")  # noqa: T201
    assert median(waits_ms) < 100


def _have_been_answered(rows: Rows, messages: int) -> bool:
    return rows.answered() == messages


def test_an_idle_worker_asks_redis_little(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    with run_worker(settings):
        accept("alice")
        eventually(lambda: rows.waiting() == 0)
        with services.lanes.client.monitor() as monitor:
            commands = _commands(monitor, seconds=IDLE_S)
    print(commands.most_common())  # noqa: T201 - for -s
    assert commands.total() < IDLE_COMMANDS_MAX * (IDLE_S + 1)  # one tick may be the window's edge


def _commands(monitor: Monitor, seconds: float) -> Counter[str]:
    """Count what clients send; not what scripts call."""
    commands: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            command = monitor.next_command()
        except TimeoutError:
            continue
        if command["client_type"] != "lua":
            commands[command["command"].split()[0].upper()] += 1
    return commands


def test_a_suspended_worker_leaves_the_wake_up_to_others(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    client = services.lanes.client
    suspend(client)
    with run_worker(settings):
        accept("alice")
        [worker] = eventually(lambda: client.smembers("rq:workers"))
        eventually(lambda: client.hget(worker, "state") == b"suspended")
        assert client.llen("wake:in") == 1
        resume(client)
        eventually(lambda: rows.waiting() == 0)


def test_a_thousand_lanes_leave_sixty_four_wake_ups(services: Services) -> None:
    services.lanes.enqueue_many([(uuid4(), uuid4()) for _ in range(1_000)])
    assert services.lanes.client.llen("wake:in") == 64
    services.lanes.pass_wake_on()
    assert services.lanes.client.llen("wake:in") == 64


@pytest.mark.parametrize("seconds", [0.0001, 0.0009, 0.001, 0.0015])
def test_a_wait_of_a_millisecond_is_not_one_for_ever(services: Services, seconds: float) -> None:
    began = time.monotonic()
    assert services.lanes.wait_for_wake(seconds) is False
    assert time.monotonic() - began < 10
