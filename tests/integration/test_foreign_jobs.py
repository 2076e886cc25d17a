"""Jobs that strangers put on a lane: reported, never run, in nobody's way."""

import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from rq import Queue

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from tests.conftest import Accept, LogLines, RunWorker, eventually, slow_after
from tests.duties import duties_of
from tests.lane_state import failed_jobs
from tests.rows import Rows


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"handler": "tests.bots:handle", "attempts_max": 2})


def _foreign(services: Services, kind: str, user_id: UUID, other: UUID, tmp_path: Path) -> None:
    """Put a job on the user's lane that is none of ours."""
    client, lane = services.lanes.client, keys.queue(user_id)
    match kind:
        case "a call":
            Queue(keys.queue_name(user_id), connection=client).enqueue(os.system, f"touch {tmp_path / 'ran'}")
        case "no UUID":
            client.rpush(lane, "nothing", b"\xff\xfe", "a" * 300)
        case "another user's message":
            client.rpush(lane, str(other))
        case "a UUID in other words":
            client.rpush(lane, uuid4().urn, uuid4().hex, f"{{{uuid4()}}}")
        case "a garbage hash":
            job = str(uuid4())
            client.set(f"rq:job:{job}", "garbage")
            client.rpush(lane, job)
        case "no hash":
            client.rpush(lane, str(uuid4()))
        case "a hash that claims to be buried":
            client.hset("rq:job:nonsense", "buried", "1")
            client.rpush(lane, "nonsense")
            client.zadd("buried:in", {f"{user_id} nonsense": 0, "nobody": 0})


FOREIGN = [
    "a call",
    "no UUID",
    "another user's message",
    "a UUID in other words",
    "a garbage hash",
    "no hash",
    "a hash that claims to be buried",
]


@pytest.mark.parametrize("kind", slow_after(3, FOREIGN))
def test_a_foreign_job_is_reported_never_run_and_in_nobodys_way(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    run_worker: RunWorker,
    log_lines: LogLines,
    tmp_path: Path,
    kind: str,
) -> None:
    other = accept("bob", "raise")
    user_id = rows.make_user("demo", "alice")
    _foreign(services, kind, user_id, other.message_id, tmp_path)
    client = services.lanes.client
    with run_worker(settings):
        first = accept("alice", "one")
        eventually(lambda: rows.states(user_id) == ["processed"])
        accept("alice", "two")
        eventually(lambda: rows.states(user_id) == ["processed"] * 2)
        eventually(lambda: any(line["event"] == "foreign_jobs" for line in log_lines))
        eventually(lambda: str(other.message_id) in failed_jobs(services, other.user_id))
        eventually(lambda: not client.exists("lanes:in"))
        leases = int(client.get("fence") or 0)
        carol = accept("carol", "a lane later")
        eventually(lambda: rows.states(carol.user_id) == ["processed"])
        eventually(lambda: not client.exists("lanes:in"))
        assert int(client.get("fence") or 0) <= leases + 2
    assert not (tmp_path / "ran").exists()
    assert str(first.message_id) not in services.lanes.jobs(user_id)
    assert rows.states(other.user_id) == ["dead"]


def test_a_dead_message_of_another_user_is_not_redriven_from_a_strangers_lane(
    rows: Rows, services: Services, accept: Accept
) -> None:
    duties = duties_of(services)
    message = accept("bob")
    [lease] = services.lanes.lease("w", 0, 1, 60).leases
    rows.settle(message.user_id, message.seq, state="dead")
    services.lanes.bury(lease, message.message_id, "Traceback: …")
    alice = UUID(int=7)
    services.lanes.client.rpush(keys.queue(alice), str(message.message_id))
    services.lanes.client.zadd("buried:in", {f"{alice} {message.message_id}": 0})
    assert duties.redrive_requeued() == 0
    assert rows.states(message.user_id) == ["dead"]
    assert str(message.message_id) in failed_jobs(services, message.user_id)
    assert services.lanes.client.exists(keys.job(message.message_id))
    assert services.lanes.jobs(alice) == []
