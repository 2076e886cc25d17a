"""What follows a handler that fails, by the channel's policy; and what a lease outlives."""

import os
import signal

import pytest
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from onelane.dev.embedded.child import children_of
from tests.conftest import eventually
from tests.processes import the_child, worker_process

PRIVATE = "raise my secret words"


def _with_poison(settings, poison, **more):
    channel = settings.channels["demo"].model_copy(update={"poison": poison, **more})
    return settings.model_copy(update={"channels": {"demo": channel}, "attempts_max": 2})


def _user(services, user_id):
    return services.database.row("SELECT * FROM users WHERE id = %s", (user_id,))


def _said(services, user_id):
    rows = services.database.rows(
        "SELECT text FROM messages WHERE user_id = %s AND direction = 'out' ORDER BY turn_seq, ordinal", (user_id,)
    )
    return [row.text for row in rows]


def _states(services, user_id):
    rows = services.database.rows(
        "SELECT state FROM messages WHERE user_id = %s AND direction = 'in' ORDER BY seq", (user_id,)
    )
    return [row.state for row in rows]


def test_a_skipped_message_is_shown_by_rq_with_its_traceback_and_no_word_of_it(services, settings, accept):
    message = accept("eve", PRIVATE)
    accept("eve", "after")
    client = services.lanes.client
    with worker_process(_with_poison(settings, "skip")):
        eventually(lambda: _said(services, message.user_id) == ["after"])
    registry = FailedJobRegistry(f"user:{message.user_id}", connection=client, serializer=JSONSerializer)
    assert registry.get_job_ids() == [str(message.message_id)]
    job = Job.fetch(str(message.message_id), connection=client, serializer=JSONSerializer)
    failure = job.latest_result().exc_string
    assert "ValueError" in failure
    assert "_raise" in failure
    assert "secret" not in failure + str(client.hgetall(job.key))


def test_a_parked_user_waits_for_an_operator_with_the_message_still_first(services, settings, accept):
    message = accept("eve", PRIVATE)
    accept("eve", "after")
    settings = _with_poison(settings, "park")
    with worker_process(settings):
        eventually(lambda: _user(services, message.user_id).pause_reason == "poison")
        lanes = services.lanes
        eventually(lambda: lanes.scores([message.user_id]) == [float("inf")])
        assert _states(services, message.user_id) == ["received", "received"]
        services.database.rows("UPDATE messages SET text = 'mended' WHERE id = %s", (message.message_id,))
        services.database.rows("SELECT resume_user(%s)", (message.user_id,))
        lanes.make_due(message.user_id, unpause=True)
        eventually(lambda: _said(services, message.user_id) == ["mended", "after"])


def test_an_apology_is_said_and_the_lane_goes_on(services, settings, accept):
    message = accept("eve", PRIVATE)
    accept("eve", "after")
    with worker_process(_with_poison(settings, "apologise", apology="Sorry.")):
        eventually(lambda: _said(services, message.user_id) == ["Sorry.", "after"])
    assert _states(services, message.user_id) == ["dead", "processed"]


@pytest.mark.parametrize("deed", ["nul", "raise-until 1"])
def test_a_message_that_is_tried_again_goes_before_the_next(deed, services, settings, accept):
    message = accept("eve", deed)
    accept("eve", "after")
    with worker_process(settings.model_copy(update={"attempts_max": 2})):
        eventually(lambda: _user(services, message.user_id).waiting == 0)
    rows = services.database.rows("SELECT seq FROM messages WHERE direction = 'in' ORDER BY processed_at")
    assert [row.seq for row in rows] == [1, 2]


def test_a_killed_workers_lanes_are_due_within_one_lock_ttl(services, settings, accept, tmp_path):
    settings = settings.model_copy(update={"lock_ttl_s": 3})
    gate, client = tmp_path / "gate", services.lanes.client
    users = [accept(f"user {nr}", f"wait {gate}").user_id for nr in range(8)]
    with worker_process(settings, "--unsupervised") as doomed:
        eventually(lambda: all(client.exists(f"lock:user:{user}") for user in users))
        with worker_process(settings):
            doomed.send_signal(signal.SIGKILL)
            doomed.wait(10)
            seconds, micros = client.time()
            latest = max(services.lanes.scores(users))
            assert latest <= seconds * 1000 + micros / 1000 + 3_000
            gate.touch()
            eventually(lambda: all(_states(services, user) == ["processed"] for user in users))


def test_a_helper_that_dies_is_replaced_before_any_lease_runs_out(services, settings, accept, tmp_path):
    log = tmp_path / "worker.log"
    settings = settings.model_copy(update={"lock_ttl_s": 4})
    message = accept("eve", "sleep 7")
    with worker_process(settings, log=log) as process:
        eventually(lambda: services.lanes.client.exists(f"lock:user:{message.user_id}"))
        [helper] = eventually(lambda: children_of(the_child(process)))
        os.kill(helper, signal.SIGKILL)
        eventually(lambda: _said(services, message.user_id) == ["sleep 7"])
        said = log.read_text()
    assert "renewer_died" in said
    assert "lease_lost" not in said
    assert "lane_taken_over" not in said


def test_a_cached_session_of_another_type_is_seen_and_replaced(services, settings, accept):
    message = accept("eve", "one")
    key = f"session:user:{message.user_id}"
    services.lanes.client.rpush(key, "not a string")
    with worker_process(settings):
        eventually(lambda: _said(services, message.user_id) == ["one"])
        eventually(lambda: services.lanes.client.type(key) == b"string")


def test_a_channels_own_word_ends_the_session_whatever_its_case(services, settings, accept):
    channel = settings.channels["demo"].model_copy(update={"end_words": ("/Neu",), "end_reply": "Bis bald."})
    settings = settings.model_copy(update={"channels": {"demo": channel}})
    message = accept("eve", " /NEU ")
    accept("eve", "after")
    with worker_process(settings):
        eventually(lambda: _said(services, message.user_id) == ["Bis bald.", "after"])
    ended = services.database.rows("SELECT ended_reason FROM conversation_sessions ORDER BY created_at")
    assert [row.ended_reason for row in ended] == ["user_request", None]
