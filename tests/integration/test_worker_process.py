"""Deaths of every kind, in real processes: what a handler may do to its worker, and what a platform does."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from tests.conftest import DEADLINE_S, Accept, RunWorker, eventually, slow_after
from tests.lane_state import due_ms, now_ms
from tests.processes import the_child, worker_process
from tests.rows import Rows

QUICK = {"attempts_max": 2, "retry_base_s": 0.05, "retry_max_s": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize("deed", slow_after(1, ["exit 1", "segv", "kill", "eat"]))
def test_a_handler_that_kills_its_process_is_dead_lettered_and_its_user_goes_on(
    rows: Rows, deed: str, services: Services, settings: Settings, accept: Accept
) -> None:
    settings = settings.model_copy(update={**QUICK, "lock_ttl_s": 1})
    poison, after, other = accept("eve", deed), accept("eve", "after"), accept("innocent", "hello")
    with worker_process(settings, suspect_memory_mb=512, is_supervised=True):
        eventually(lambda: rows.is_settled(poison.user_id))
        eventually(lambda: rows.is_settled(other.user_id))
    assert rows.states(poison.user_id) == ["dead", "processed"]
    assert rows.texts(after.user_id) == ["after"]
    assert rows.texts(other.user_id) == ["hello"]


@pytest.mark.slow
def test_a_handler_that_hangs_loses_its_lease_and_is_dead_lettered(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    settings = settings.model_copy(update={**QUICK, "turn_timeout_s": 0.3})
    poison, after = accept("eve", "sleep 30"), accept("eve", "after")
    with worker_process(settings, "--slots=4"):
        eventually(lambda: rows.is_settled(poison.user_id))
    assert rows.states(poison.user_id) == ["dead", "processed"]
    assert rows.texts(after.user_id) == ["after"]


@pytest.mark.slow
def test_a_worker_whose_every_slot_hangs_replaces_itself(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    settings = settings.model_copy(update={**QUICK, "turn_timeout_s": 0.3, "shutdown_grace_s": 0.2})
    poison, after = accept("eve", "sleep 600"), accept("eve", "after")
    with worker_process(settings, "--slots=1", is_supervised=True) as process:
        first = the_child(process)
        eventually(lambda: rows.is_settled(poison.user_id))
        assert the_child(process) != first
    assert rows.texts(after.user_id) == ["after"]


@pytest.mark.slow
def test_a_handler_that_keeps_the_gil_is_ended_with_its_stacks_and_dead_lettered(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={**QUICK, "lock_ttl_s": 1, "turn_timeout_s": 3})
    poison, after = accept("eve", "hog"), accept("eve", "after")
    with worker_process(settings, log=tmp_path / "worker.log", stall_limit_s=2, is_supervised=True):
        eventually(lambda: rows.is_settled(poison.user_id))
    assert rows.states(poison.user_id) == ["dead", "processed"]
    assert rows.texts(after.user_id) == ["after"]
    assert "_hog" in (tmp_path / "worker.log").read_text()


@pytest.mark.slow
def test_a_worker_that_was_stopped_charges_nobody_for_the_time_in_which_it_was(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={**QUICK, "turn_timeout_s": 3, "lock_ttl_s": 1})
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    message = accept("alice", f"wait {gate}")
    with worker_process(settings, log=tmp_path / "worker.log", bot_log=runs, stall_limit_s=600) as worker:
        eventually(runs.exists)
        for stopped_s, works_s in ((6, 1.0), (6, 0.0)):
            os.kill(worker.pid, signal.SIGSTOP)
            time.sleep(stopped_s)
            os.kill(worker.pid, signal.SIGCONT)
            time.sleep(works_s)
        gate.touch()
        eventually(lambda: rows.states(message.user_id) == ["processed"])
    assert rows.accepted()[0].attempts == 0
    assert "slot_stuck" not in (tmp_path / "worker.log").read_text()


@pytest.mark.slow
def test_killing_a_busy_worker_several_times_convicts_nobody(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": 1, "attempts_max": 1, "backlog_max": 1000})
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    runs.touch()

    def count() -> int:
        return len(runs.read_text().splitlines())

    def have_run(times: int) -> bool:
        return count() >= times

    users = [accept(f"user {nr}", f"wait {gate}").user_id for nr in range(12)]
    with worker_process(settings, "--slots=200", bot_log=runs, is_supervised=True) as process:
        for more in (12, 12, 2):  # from the second death on they are suspects: two at a time, apart
            eventually(partial(have_run, count() + more))
            os.kill(the_child(process), signal.SIGKILL)
        gate.touch()
        eventually(lambda: all(rows.is_settled(user) for user in users))
    assert {state for user in users for state in rows.states(user)} == {"processed"}


@pytest.mark.slow
def test_sigterm_twice_hands_unfinished_lanes_back_at_once_and_exits_0(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    settings = settings.model_copy(update={"shutdown_grace_s": 0.5, "lock_ttl_s": 30})
    message = accept("slow", "sleep 5")
    client = services.lanes.client
    with worker_process(settings, is_supervised=True) as process:
        eventually(lambda: client.exists(f"lock:in:{message.user_id}"))
        process.send_signal(signal.SIGTERM)
        os.kill(the_child(process), signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(DEADLINE_S) == 0
        assert time.monotonic() - began < 15
    assert client.exists(f"lock:in:{message.user_id}") == 0
    assert due_ms(services, message.user_id) <= now_ms(services)
    assert rows.states(message.user_id) == ["received"]
    assert client.smembers("rq:workers") == set()


@pytest.mark.slow
def test_turns_that_end_within_the_grace_are_committed(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    message, after = accept("slow", "sleep 1"), accept("slow", "after")
    with worker_process(settings.model_copy(update={"shutdown_grace_s": 10})) as process:
        eventually(lambda: services.lanes.client.exists(f"lock:in:{message.user_id}"))
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
    assert rows.states(after.user_id) == ["processed", "received"]


@pytest.mark.slow
def test_a_burst_ends_when_no_lane_is_due(rows: Rows, services: Services, settings: Settings, accept: Accept) -> None:
    users = [accept(f"user {nr}").user_id for nr in range(20)]
    with worker_process(settings, "--burst") as process:
        assert process.wait(DEADLINE_S) == 0
    assert all(rows.is_settled(user) for user in users)


def test_a_wrong_setting_ends_the_worker_with_one_line(settings: Settings, tmp_path: Path) -> None:
    with worker_process(settings, log=tmp_path / "worker.log", handler="no.such.module:handle") as process:
        assert process.wait(DEADLINE_S) == 78
    said = (tmp_path / "worker.log").read_text().splitlines()
    assert len([line for line in said if "HANDLER" in line]) == 1
    assert "Traceback" not in "".join(said)


def test_a_signal_that_interrupts_another_does_not_wait_for_itself(
    services: Services, settings: Settings, run_worker: RunWorker
) -> None:
    """A dyno's worker gets SIGTERM directly and through its supervisor; the second found the first's lock taken."""
    with run_worker(settings) as worker, vars(worker.runner._stopping)["_cond"]:
        second = threading.Thread(target=worker.stop)
        second.start()
        second.join(5)
        assert not second.is_alive()
