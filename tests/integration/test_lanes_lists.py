"""One script call for many lanes: each item of its list is an island, and nobody waits for an answer who must not."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rq.job import Job
from rq.serializers import JSONSerializer

from onelane import keys
from onelane.dev.embedded import EmbeddedRedis
from onelane.lanes import jobs
from onelane.lanes.gathering import Call
from onelane.lanes.lanes import Lanes
from onelane.lanes.releases import Released
from onelane.lanes.scripts import connect
from tests.conftest import eventually
from tests.lane_model import START_MS, Dump

TTL_S = 15
USERS = [UUID(int=(nr + 1) << 96) for nr in range(3)]
MESSAGES = [UUID(int=nr) for nr in range(1, 6)]

Answers = list[Any]
Run = Callable[[Sequence[Call]], Answers]


@pytest.fixture(scope="module")
def client(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    client = connect(redis_server.url, timeout_s=5, wait_s=5, connections_max=2)
    yield client
    client.config_set("maxmemory", 0)
    client.close()


@pytest.fixture
def lanes(client: redis.Redis) -> Lanes:
    client.flushall()
    return Lanes(client, clock_ms=lambda: START_MS)


enqueued = st.tuples(st.sampled_from(USERS), st.sampled_from(MESSAGES))
ends = st.fixed_dictionaries(
    {
        "user": st.sampled_from(USERS).map(str),
        "done": st.lists(st.sampled_from(MESSAGES).map(str), unique=True, max_size=2),
        "pace_ms": st.sampled_from([0, 500]),
        "runs": st.integers(0, 2),
        "may_go_on": st.booleans(),
        "has_more": st.booleans(),
        "foreign": st.integers(0, 1),
        "pause": st.booleans(),
        "session": st.sampled_from(["", str(MESSAGES[0])]),
        "session_ms": st.sampled_from([0, 60_000, None]),
        "delay_ms": st.sampled_from([0, 7_000, None]),
    }
)
"""What is None is a mistake that fails its item."""


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    before=st.lists(enqueued, min_size=1, max_size=4),
    after=st.lists(enqueued, max_size=4),
    script=st.sampled_from(["finish", "park"]),
    given_ends=st.lists(ends, min_size=1, max_size=5),
)
def test_a_list_does_what_its_items_do_one_by_one(
    lanes: Lanes,
    before: list[tuple[UUID, UUID]],
    after: list[tuple[UUID, UUID]],
    script: str,
    given_ends: list[dict[str, Any]],
) -> None:
    first, second = ([args for _, args in lanes._enqueue_calls(pairs)] for pairs in (before, after))

    def play(run: Run) -> tuple[Answers, Dump]:
        lanes.client.flushall()
        answers = run([("enqueue", args) for args in first])
        tokens = {str(lease.user_id): lease.token for lease in lanes.lease("w", 0, 2, TTL_S).leases}
        answers += run([("enqueue", args) for args in second])
        answers += run([(script, (START_MS, {**end, "token": tokens.get(end["user"], "none")})) for end in given_ends])
        return [repr(answer) for answer in answers], Dump(lanes.client)

    def one_by_one(calls: Sequence[Call]) -> Answers:
        return [lanes.scripts.run_each([call])[0] for call in calls]

    in_lists, singly = play(lanes.scripts.run_each), play(one_by_one)
    assert in_lists[0] == singly[0]
    assert in_lists[1].everything == singly[1].everything


def test_in_a_full_redis_each_item_gets_what_it_would_get_alone(lanes: Lanes) -> None:
    lanes.enqueue(USERS[0], MESSAGES[0])
    [lease] = lanes.lease("w", 0, 1, TTL_S).leases
    lanes.bury(lease, MESSAGES[0], "Traceback: …")
    lanes.enqueue(USERS[1], MESSAGES[1])
    calls = [
        ("enqueue", args)
        for _, args in lanes._enqueue_calls(list(zip(2 * USERS, [*MESSAGES[:3], *MESSAGES[:3]], strict=True)))
    ]
    lanes.client.config_set("maxmemory", 1)
    try:
        assert lanes.scripts.run_each(calls) == [1, 0, -1, 0, 0, -1]
    finally:
        lanes.client.config_set("maxmemory", 0)
    assert [lanes.jobs(user) for user in USERS] == [[str(MESSAGES[0])], [str(MESSAGES[1])], []]
    assert lanes.scores(USERS) == [START_MS + TTL_S * 1000, START_MS, START_MS]


def test_a_list_of_any_length_is_one_script_a_bounded_part(lanes: Lanes) -> None:
    lanes.enqueue(USERS[0], MESSAGES[0])
    lanes.client.config_resetstat()
    lanes.enqueue_many([(UUID(int=nr << 64), UUID(int=nr)) for nr in range(1, 131)])
    assert lanes.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 3
    assert lanes.client.zcard("lanes:in") == 131


def test_the_end_of_a_lease_is_asked_for_without_waiting(lanes: Lanes) -> None:
    lanes.enqueue_many([(user, user) for user in USERS])
    first, second, third = lanes.lease("w", 0, 3, TTL_S).leases
    with lanes.scripts._gathering._sending:  # as over a round trip
        answers: list[Future[Any]] = [
            lanes.finish_soon(first, [first.user_id]),
            lanes.park_soon(second, 0),
            lanes.bury_soon(third, third.user_id, "Traceback: …"),
            lanes.raise_fence_soon(7),
            lanes.jobs_soon(USERS[1]),
        ]
        assert not any(answer.done() for answer in answers)
    assert [answer.result() for answer in answers] == [Released.FORGOTTEN, True, True, first.fence + 2, [str(USERS[1])]]


def test_a_job_is_what_rq_would_write_as_rq_reads_it(lanes: Lanes) -> None:
    user, message = USERS[0], MESSAGES[0]
    lanes.enqueue(user, message)
    ours = Job.fetch(str(message), connection=lanes.client, serializer=JSONSerializer)
    theirs = jobs.job_of(lanes.client, "in", user, message)
    assert theirs.created_at - ours.created_at == theirs.enqueued_at - ours.enqueued_at
    ours.created_at, ours.enqueued_at = theirs.created_at, theirs.enqueued_at
    assert json.loads(ours.data) == json.loads(theirs.data)
    assert {**ours.to_dict(), "data": None} == {**theirs.to_dict(), "data": None}
    with pytest.raises(RuntimeError, match="start `onelane worker`"):
        ours.func(*ours.args)


def test_redis_keeps_a_job_in_little_room(lanes: Lanes) -> None:
    lanes.enqueue(USERS[0], MESSAGES[0])
    assert lanes.client.object("encoding", keys.job(MESSAGES[0])) in {b"ziplist", b"listpack"}


def test_the_messages_of_concurrent_requests_are_one_script_call(lanes: Lanes) -> None:
    lanes.enqueue(USERS[0], MESSAGES[0])
    gathering = lanes.scripts._gathering
    lanes.client.config_resetstat()
    with ThreadPoolExecutor(20) as threads:
        with gathering._sending:  # as over a round trip
            for nr in range(1, 21):
                threads.submit(lanes.enqueue_many, [(UUID(int=nr << 64), UUID(int=nr))])
            eventually(lambda: len(gathering._waiting) == 20)
        gathering._leave_to_sender()
    assert lanes.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
    assert lanes.client.zcard("lanes:in") == 21
