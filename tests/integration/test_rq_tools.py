"""RQ's own tools see the worker and its lanes, and are obeyed."""

import subprocess
import sys
from pathlib import Path

import pytest
from rq import Worker
from rq.command import send_shutdown_command
from rq.suspension import resume, suspend

from onelane.bootstrap import Services
from onelane.config import Settings
from tests.conftest import DEADLINE_S, Accept, eventually
from tests.processes import the_child, worker_process
from tests.rows import Rows


def _rq(settings: Settings, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("rq")), arguments[0], "--url", settings.redis_url, *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


@pytest.mark.slow
def test_rq_info_shows_the_worker_its_state_and_its_lanes(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with worker_process(settings):
        message = accept("alice", f"wait {gate}")
        accept("alice", "second")
        lane = f"user:{message.user_id}"
        shown = eventually(lambda: "busy" in (out := _rq(settings, "info", "--raw")) and out)
        assert f"queue {lane} 2" in shown
        assert f" busy {lane}." in shown
        assert "1 workers, 1 queues" in _rq(settings, "info")
        gate.touch()
        eventually(lambda: rows.answered() == 2)
        eventually(lambda: " idle ." in (out := _rq(settings, "info", "--raw")) and lane not in out)


@pytest.mark.slow
def test_a_suspended_worker_takes_nothing_until_resumed_also_when_it_starts_suspended(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    client = services.lanes.client
    suspend(client)
    with worker_process(settings) as process:
        accept("alice", "one")
        [worker] = eventually(lambda: Worker.all(connection=client))
        eventually(lambda: client.hget(worker.key, "state") == b"suspended")
        assert client.llen("wake:in") == 1  # nobody took the call
        assert process.is_running
        resume(client)
        eventually(lambda: rows.answered() == 1)
        suspend(client)
        eventually(lambda: client.hget(worker.key, "state") == b"suspended")
        accept("alice", "two")
        resume(client)
        eventually(lambda: rows.answered() == 2)


@pytest.mark.slow
def test_rqs_shutdown_command_ends_the_worker_and_its_supervisor(services: Services, settings: Settings) -> None:
    client = services.lanes.client
    with worker_process(settings, is_supervised=True) as process:
        the_child(process)
        [worker] = eventually(lambda: Worker.all(connection=client))
        eventually(lambda: client.pubsub_numsub(f"rq:pubsub:{worker.name}")[0][1] == 1)
        send_shutdown_command(client, worker.name)
        assert process.wait(DEADLINE_S) == 0
    assert Worker.all(connection=client) == []
