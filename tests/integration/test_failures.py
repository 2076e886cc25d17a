"""What follows a handler that fails, by the channel's policy; and what a lease outlives."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from onelane.bootstrap import Services
from onelane.config import Settings
from tests.conftest import DEADLINE_S, Accept, eventually
from tests.lane_state import due_ms, now_ms
from tests.processes import renewer_of, worker_process
from tests.rows import Rows
from tests.working_off import work_off

PRIVATE = "raise my secret words"


def _with_poison(settings: Settings, poison: str, **more: Any) -> Settings:
    channel = settings.channels["demo"].model_copy(update={"poison": poison, **more})
    return settings.model_copy(
        update={"channels": {"demo": channel}, "attempts_max": 2, "handler": "tests.bots:handle"}
    )


def test_a_skipped_message_is_shown_by_rq_with_its_traceback_and_no_word_of_it(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    message = accept("eve", PRIVATE)
    accept("eve", "after")
    client = services.lanes.client
    work_off(services, _with_poison(settings, "skip"))
    assert rows.texts(message.user_id) == ["after"]
    registry = FailedJobRegistry(f"user:{message.user_id}", connection=client, serializer=JSONSerializer)
    assert registry.get_job_ids() == [str(message.message_id)]
    job = Job.fetch(str(message.message_id), connection=client, serializer=JSONSerializer)
    failure = job.latest_result().exc_string
    assert "ValueError" in failure
    assert "_raise" in failure
    assert "secret" not in failure + str(client.hgetall(job.key))


def test_a_parked_user_waits_for_an_operator_with_the_message_still_first(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    message = accept("eve", PRIVATE)
    accept("eve", "after")
    settings = _with_poison(settings, "park")
    work_off(services, settings)
    assert rows.user(message.user_id).pause_reason == "poison"
    assert services.lanes.scores([message.user_id]) == [float("inf")]
    assert rows.states(message.user_id) == ["received", "received"]
    rows.rewrite(message.message_id, "mended")
    rows.resume(message.user_id)
    services.lanes.make_due(message.user_id, unpause=True)
    work_off(services, settings)
    assert rows.texts(message.user_id) == ["mended", "after"]


def test_an_apology_is_said_and_the_lane_goes_on(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    message = accept("eve", PRIVATE)
    accept("eve", "after")
    work_off(services, _with_poison(settings, "apologise", apology="Sorry."))
    assert rows.texts(message.user_id) == ["Sorry.", "after"]
    assert rows.states(message.user_id) == ["dead", "processed"]


@pytest.mark.parametrize("deed", ["nul", "raise-until 1"])
def test_a_message_that_is_tried_again_goes_before_the_next(
    rows: Rows, deed: str, services: Services, settings: Settings, accept: Accept
) -> None:
    message = accept("eve", deed)
    accept("eve", "after")
    work_off(services, settings.model_copy(update={"attempts_max": 2, "handler": "tests.bots:handle"}))
    assert rows.is_settled(message.user_id)
    assert rows.out_of_order() == []


@pytest.mark.slow
def test_a_killed_workers_lanes_are_due_within_one_lock_ttl(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": 3})
    gate, client = tmp_path / "gate", services.lanes.client
    users = [accept(f"user {nr}", f"wait {gate}").user_id for nr in range(8)]
    with worker_process(settings) as doomed:
        eventually(lambda: all(client.exists(f"lock:in:{user}") for user in users))
        with worker_process(settings):
            doomed.send_signal(signal.SIGKILL)
            doomed.wait(DEADLINE_S)
            assert max(due_ms(services, user) for user in users) <= now_ms(services) + 3_000
            gate.touch()
            eventually(lambda: all(rows.states(user) == ["processed"] for user in users))


@pytest.mark.slow
@pytest.mark.parametrize(("deed", "event"), [(signal.SIGKILL, "renewer_died"), (signal.SIGSTOP, "renewer_silent")])
def test_a_helper_that_dies_or_is_frozen_is_replaced_before_any_lease_runs_out(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    tmp_path: Path,
    deed: signal.Signals,
    event: str,
) -> None:
    log = tmp_path / "worker.log"
    settings = settings.model_copy(update={"lock_ttl_s": 15})
    message = accept("eve", "sleep 20")
    with worker_process(settings, log=log) as process:
        eventually(lambda: services.lanes.client.exists(f"lock:in:{message.user_id}"))
        os.kill(renewer_of(process.pid), deed)
        eventually(lambda: rows.texts(message.user_id) == ["sleep 20"])
        said = log.read_text()
    assert event in said
    assert "lease_lost" not in said
    assert "lane_taken_over" not in said


def test_a_cached_session_of_another_type_is_seen_and_replaced(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    message = accept("eve", "one")
    key = f"session:user:{message.user_id}"
    services.lanes.client.rpush(key, "not a string")
    work_off(services, settings)
    assert rows.texts(message.user_id) == ["one"]
    assert services.lanes.client.type(key) == b"string"


def test_a_channels_own_word_ends_the_session_whatever_its_case(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    channel = settings.channels["demo"].model_copy(update={"end_words": ("/Neu",), "end_reply": "Bis bald."})
    settings = settings.model_copy(update={"channels": {"demo": channel}, "handler": "tests.bots:handle"})
    message = accept("eve", " /NEU ")
    accept("eve", "after")
    work_off(services, settings)
    assert rows.texts(message.user_id) == ["Bis bald.", "after"]
    assert rows.shape(message.user_id) == [([1], "user_request"), ([2], None)]
