"""Lanes of replies, beside those of turns: what makes them due, which workers work them, and what brings them back."""

from pathlib import Path
from uuid import UUID

import pytest
from rq import Queue
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from onelane import keys
from onelane.bootstrap import Services, open_worker
from onelane.config import Channel, Settings
from onelane.doctor.finding import Deployment, Health
from onelane.doctor.lanes import workers_live
from onelane.lanes.releases import Released
from onelane.operations.snapshot import Survey
from onelane.processes.reconciler import USERS_PER_PAGE, Reconciler
from onelane_web.ops.rq_state import RqState
from tests.calls import Calls, lease, settlement
from tests.conftest import SECRET, Accept, LogLines, RunWorker, eventually
from tests.rows import Rows
from tests.working_off import work_off

TTL_S = 60


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A channel whose provider lives in the process, and takes every reply."""
    channels = {"demo": Channel(provider="demo", secrets=(SECRET,))}
    return settings.model_copy(update={"channels": channels, "handler": "tests.bots:handle"})


def _of_kinds(settings: Settings, *kinds: str) -> Settings:
    return settings.model_copy(update={"worker_kinds": kinds})


def _jobs(services: Services, user_id: UUID) -> Queue:
    return Queue(keys.queue_name(user_id, keys.OUT), connection=services.lanes.client, serializer=JSONSerializer)


def test_a_turns_replies_are_genuine_jobs_on_a_lane_that_a_worker_of_turns_leaves_alone(
    settings: Settings, services: Services, accept: Accept, rows: Rows, run_worker: RunWorker
) -> None:
    user_id = accept("alice").user_id
    with run_worker(_of_kinds(settings, keys.IN)):
        eventually(lambda: services.out_lanes.jobs(user_id))
        other = accept("bob").user_id  # whatever it leases from now on, that lane is none of it
        eventually(lambda: services.out_lanes.jobs(other))
        [leased] = services.out_lanes.lease("a test", 1, 1, TTL_S).leases
    assert (leased.user_id, leased.taken_over) == (user_id, False)
    [waiting] = rows.outbox(user_id)
    [job] = _jobs(services, user_id).jobs
    assert (job.id, job.args, job.description) == (str(waiting.id), [str(waiting.id)], f"reply {waiting.id}")
    assert job.get_status() == "queued"
    assert services.lanes.scores([user_id]) == [None]


def test_a_worker_of_replies_sends_them_and_takes_no_turn(
    settings: Settings, services: Services, accept: Accept, rows: Rows, run_worker: RunWorker
) -> None:
    user_id = accept("alice").user_id
    with run_worker(_of_kinds(settings, keys.IN)):
        eventually(lambda: services.out_lanes.jobs(user_id))
    message = accept("bob")
    with run_worker(_of_kinds(settings, keys.OUT)):
        eventually(lambda: not rows.outbox(user_id) and services.out_lanes.scores([user_id]) == [None])
    assert [reply.state for reply in rows.replies(user_id)] == ["sent"]
    assert rows.states(message.user_id) == ["received"]
    assert services.lanes.client.exists(keys.lock(message.user_id)) == 0


@pytest.mark.slow
def test_the_replies_of_somebody_who_is_paused_are_sent(
    settings: Settings, services: Services, accept: Accept, rows: Rows, run_worker: RunWorker
) -> None:
    """Who committed the turn died before it let the out lane know."""
    user_id = accept("alice").user_id
    with run_worker(_of_kinds(settings, keys.IN)):
        eventually(lambda: services.out_lanes.jobs(user_id))
    services.lanes.client.flushall()
    rows.pause(user_id)
    accept("alice")
    with run_worker(_of_kinds(settings, keys.IN)):
        eventually(lambda: services.out_lanes.jobs(user_id))
    assert rows.states(user_id) == ["processed", "received"]


def test_a_burst_sends_the_replies_of_its_turns(
    settings: Settings, services: Services, accept: Accept, rows: Rows
) -> None:
    users = [accept(f"user {nr}").user_id for nr in range(20)]
    assert open_worker(settings).run(burst=True) == 0
    assert [reply.state for user in users for reply in rows.replies(user)] == 20 * ["sent"]
    assert Survey(services.out_lanes).snapshot().total == 0


@pytest.mark.slow
def test_a_lane_of_replies_whose_worker_died_is_taken_over(
    settings: Settings, services: Services, accept: Accept, rows: Rows, run_worker: RunWorker
) -> None:
    user_id = accept("alice").user_id
    with run_worker(_of_kinds(settings, keys.IN)):
        eventually(lambda: services.out_lanes.jobs(user_id))
    assert len(services.out_lanes.lease("one that dies", 1, 1, 1).leases) == 1
    with run_worker(settings):
        eventually(lambda: [reply.state for reply in rows.replies(user_id)] == ["sent"])


def test_replies_go_out_although_who_committed_them_died_before_it_let_their_lane_know(
    settings: Settings, services: Services, accept: Accept
) -> None:
    user_id, calls = accept("alice").user_id, Calls(services.database)
    [begun] = calls.begin(lease(user_id, 0))
    calls.settle(settlement(begun, 0, replies=[{"text": "hello"}]))
    work_off(services, settings)  # finds that no turn waits
    assert services.out_lanes.jobs(user_id)


@pytest.mark.slow
def test_replies_go_out_although_redis_forgot_that_they_wait(
    settings: Settings, services: Services, accept: Accept, rows: Rows, run_worker: RunWorker
) -> None:
    user_id = accept("alice").user_id
    with run_worker(_of_kinds(settings, keys.IN)):
        eventually(lambda: services.out_lanes.jobs(user_id))
    services.lanes.client.flushall()
    with run_worker(settings):
        eventually(lambda: [reply.state for reply in rows.replies(user_id)] == ["sent"])


@pytest.mark.slow
def test_a_failed_reply_requeued_with_rqs_tools_is_sent(
    settings: Settings, services: Services, accept: Accept, rows: Rows, run_worker: RunWorker, log_lines: LogLines
) -> None:
    user_id = accept("alice").user_id
    with run_worker(_of_kinds(settings, keys.IN)):
        eventually(lambda: services.out_lanes.jobs(user_id))
    [lease] = services.out_lanes.lease("a test", 1, 1, TTL_S).leases
    [reply] = rows.outbox(user_id)
    rows.fail_reply(reply.id)
    services.out_lanes.bury(lease, reply.id, "blocked")
    assert services.out_lanes.finish(lease) is Released.FORGOTTEN
    registry = FailedJobRegistry(
        keys.queue_name(user_id, keys.OUT), connection=services.lanes.client, serializer=JSONSerializer
    )
    assert RqState(services.lanes.client).queue_names() == [registry.name]
    registry.requeue(str(reply.id))
    with run_worker(settings):
        eventually(lambda: [reply.state for reply in rows.replies(user_id)] == ["sent"])
    assert registry.get_job_count() == 0
    again = [line["event"] for line in log_lines if line.get("message_id") == str(reply.id)]
    assert "reply_resent" in again
    assert "message_redriven" not in again


@pytest.mark.slow
def test_turns_that_fill_all_slots_keep_no_reply_waiting(
    settings: Settings, accept: Accept, rows: Rows, run_worker: RunWorker, tmp_path: Path
) -> None:
    gate, sender = tmp_path / "gate", accept("alice").user_id
    with run_worker(_of_kinds(settings, keys.IN)):
        eventually(lambda: rows.outbox(sender))
    hanging = accept("bob", f"wait {gate}").user_id
    with run_worker(settings.model_copy(update={"worker_slots": 1})):
        eventually(lambda: [reply.state for reply in rows.replies(sender)] == ["sent"])
        assert rows.states(hanging) == ["received"]
        gate.touch()
        eventually(lambda: [reply.state for reply in rows.replies(hanging)] == ["sent"])


@pytest.mark.slow
def test_the_doctor_says_when_a_kind_has_no_worker(
    services: Services, settings: Settings, run_worker: RunWorker
) -> None:
    deployment = Deployment(settings, services.database, services.lanes)
    with run_worker(_of_kinds(settings, keys.IN)):
        eventually(lambda: workers_live(deployment).found == "no worker sends replies: they wait")
    with run_worker(settings):
        eventually(lambda: workers_live(deployment).health is Health.OK)


@pytest.mark.parametrize("kind", keys.KINDS)
def test_each_kind_has_laps_of_its_own(services: Services, rows: Rows, kind: str) -> None:
    rows.make_waiting_users(USERS_PER_PAGE + 1)
    rows.make_waiting_replies(USERS_PER_PAGE + 2)
    many = {keys.IN: USERS_PER_PAGE + 1, keys.OUT: USERS_PER_PAGE + 2}[kind]
    [lanes] = [lanes for lanes in services.all_lanes if lanes.kind == kind]
    assert Reconciler(services.database, lanes, "a test", 3_600).reconcile() == many
    assert services.lanes.client.zcard(keys.lanes(kind)) == many
    assert [lanes.marks.is_reconciled(60) for lanes in services.all_lanes] == [
        lanes is one for one in services.all_lanes
    ]
