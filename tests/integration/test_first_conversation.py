"""The whole way of a message: accepted, leased, resolved, handled, committed, finished."""

from concurrent.futures import ThreadPoolExecutor

from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.lanes.scripts import text_of
from tests.conftest import Accept, RunWorker, eventually
from tests.lane_state import cached_session
from tests.rows import Rows


def test_two_messages_of_a_user_share_a_session_and_two_users_do_not(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    with run_worker(settings):
        first, second, other = accept("alice", "one"), accept("alice", "two"), accept("bob", "three")
        alice = eventually(lambda: (found := rows.replies(first.user_id)) and len(found) == 2 and found)
        bob = eventually(lambda: rows.replies(other.user_id))
    assert [reply.text for reply in alice] == ["one", "two"]
    assert second.seq == 2
    assert alice[0].session_id == alice[1].session_id != bob[0].session_id


def test_fifty_messages_of_a_new_user_at_once_make_one_session_in_order(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    with ThreadPoolExecutor(50) as pool, run_worker(settings):
        accepted = list(pool.map(lambda nr: accept("carol", f"text {nr}", f"id {nr}"), range(50)))
        user_id = accepted[0].user_id
        replies = eventually(lambda: len(found := rows.replies(user_id)) == 50 and found)
        again = list(pool.map(lambda nr: accept("carol", f"text {nr}", f"id {nr}"), range(50)))
    assert sorted(message.seq for message in accepted) == list(range(1, 51))
    assert [reply.turn_seq for reply in replies] == list(range(1, 51))
    assert len({reply.session_id for reply in replies}) == 1
    assert all(message.duplicate for message in again)
    assert len(rows.replies(user_id)) == 50


def test_a_waiting_message_is_a_genuine_rq_job_that_holds_no_text(services: Services, accept: Accept) -> None:
    message = accept("dora", "a very private text")
    queue = Queue(f"user:{message.user_id}", connection=services.lanes.client, serializer=JSONSerializer)
    assert queue.count == 1
    job = Job.fetch(str(message.message_id), connection=services.lanes.client, serializer=JSONSerializer)
    assert job.args == [str(message.message_id)]
    everything = str(services.lanes.client.hgetall(job.key)) + str(job.description)
    assert "private" not in everything
    assert "dora" not in everything


def test_a_lane_with_nothing_left_leaves_nothing_behind_but_the_cached_session(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    client = services.lanes.client
    with run_worker(settings):
        message = accept("erin")
        eventually(lambda: client.zcard("lanes:in") == 0 and rows.replies(message.user_id))
        assert cached_session(services, message.user_id) == str(rows.replies(message.user_id)[0].session_id)
        assert 25_190_000 < client.pttl(f"session:user:{message.user_id}") <= 25_200_000
        assert client.smembers("rq:queues") == set()
    left = {text_of(key) for key in client.keys("*")}
    worker_keys = {
        key
        for key in left
        if key.startswith(
            (
                "rq:worker",
                "heartbeats",
                "beat:",
                "lease:",
                "duty:",
                "numbers",
                "minutes",
                "counted:",
                "wake",
                "reconciled",
            )
        )
    }
    assert left - worker_keys == {f"session:user:{message.user_id}", "instance", "fence"}
