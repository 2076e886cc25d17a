"""A worker process's slots: who works, who hangs, who waits; and how the process ends."""

import asyncio
import threading
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from rq.suspension import resume, suspend

from onelane import keys, periodic
from onelane.bootstrap import Services, open_worker
from onelane.config import Settings
from onelane.lanes.lanes import Lanes
from onelane.processes import dispatcher
from onelane.processes.duties import Duties
from onelane.processes.runner import EXIT_STUCK
from onelane.processes.slots import Slots
from onelane.sessions import Sessions
from onelane.turns import hosting
from tests.conftest import DEADLINE_S, Accept, eventually
from tests.rows import Rows

Lines = list[MutableMapping[str, Any]]
SLOTS = 3


class Run:
    """A worker that runs in a thread, and what it returned."""

    def __init__(self, settings: Settings, *, burst: bool = False) -> None:
        self.worker = open_worker(settings)
        self.code: int | None = None
        self._burst = burst
        self._thread = threading.Thread(target=self._run, name="worker")

    @property
    def slots(self) -> Slots:
        return self.worker.runner._slots

    def start(self) -> None:
        self._thread.start()

    def end(self) -> int | None:
        """Wait for its own end and return the exit code."""
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        return self.code

    def stop(self) -> int | None:
        self.worker.stop()
        return self.end()

    def _run(self) -> None:
        self.code = self.worker.run(burst=self._burst)


Start = Callable[..., Run]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that `wait` handlers wait for; they all end with the test."""
    gate = tmp_path / "gate"
    yield gate
    gate.touch()


@pytest.fixture
def start(settings: Settings, services: Services, gate: Path) -> Iterator[Start]:
    """Start a worker with SLOTS slots; stop it after the test."""
    runs = []
    ours = {"handler": "tests.bots:handle", "worker_slots": SLOTS, "shutdown_grace_s": 0.2, "retry_base_s": 600}

    def start(*, burst: bool = False, **more: object) -> Run:
        runs.append(Run(settings.model_copy(update={**ours, "retry_max_s": 600, **more}), burst=burst))
        runs[-1].start()
        return runs[-1]

    yield start
    gate.touch()
    for run in runs:
        run.stop()


def events(lines: Lines, name: str) -> Lines:
    return [line for line in lines if line["event"] == name]


# free slots


def test_a_slot_is_taken_by_one_lane_from_its_lease_to_its_release(
    start: Start, accept: Accept, rows: Rows, gate: Path
) -> None:
    slots = start().slots
    assert slots.free == SLOTS
    accept("alice", f"wait {gate}")
    eventually(lambda: slots.free == SLOTS - 1)
    accept("bob", f"wait {gate}")
    eventually(lambda: slots.free == SLOTS - 2)
    accept("alice", "a second message takes no second slot")
    other = accept("carol")
    eventually(lambda: rows.is_settled(other.user_id) and slots.free == SLOTS - 2)
    gate.touch()
    eventually(lambda: rows.waiting() == 0 and slots.free == SLOTS)


def test_no_more_lanes_are_leased_than_there_are_slots(
    start: Start, accept: Accept, rows: Rows, services: Services, gate: Path
) -> None:
    users = [accept(f"user {nr}", f"wait {gate}").user_id for nr in range(SLOTS + 4)]
    slots = start().slots
    eventually(lambda: slots.free == 0)
    assert sum(services.lanes.client.exists(keys.lock(user)) for user in users) == SLOTS
    gate.touch()
    eventually(lambda: rows.waiting() == 0 and slots.free == SLOTS)


def test_a_turn_whose_lease_was_lost_still_takes_its_slot(
    start: Start, accept: Accept, services: Services, gate: Path, log_lines: Lines
) -> None:
    message = accept("alice", f"wait {gate}")
    run = start()
    eventually(lambda: run.slots.free == SLOTS - 1)
    services.lanes.client.hset(keys.lock(message.user_id), "token", "another's:1")
    eventually(lambda: events(log_lines, "lease_lost") and run.worker.runner._keeper.holdings == [])
    assert run.slots.free == SLOTS - 1
    gate.touch()
    eventually(lambda: run.slots.free == SLOTS)


def test_a_user_whose_turn_of_a_lost_lease_still_runs_here_waits_for_its_end(
    start: Start, accept: Accept, services: Services, rows: Rows, gate: Path, log_lines: Lines
) -> None:
    """Each lease of the lane took another slot, with another run of the same handler."""
    message = accept("alice", f"wait {gate}")
    run = start()
    eventually(lambda: run.slots.free == SLOTS - 1)
    postponed = _count(run.slots, "_postpone")
    services.lanes.client.delete(keys.lock(message.user_id))
    services.lanes.make_due(message.user_id)
    eventually(lambda: events(log_lines, "lease_lost") and len(postponed) > 1)
    assert run.slots.free == SLOTS - 1
    gate.touch()
    eventually(lambda: rows.is_settled(message.user_id) and run.slots.free == SLOTS)
    assert len(rows.texts(message.user_id)) == 1
    assert rows.message(message.message_id).deaths == 0


def test_a_lane_for_which_no_thread_can_be_started_is_left_to_others(
    start: Start, accept: Accept, services: Services, rows: Rows, log_lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    with monkeypatch.context() as patch:
        patch.setattr("onelane.turns.handler_threads.Thread", _refuse)
        users = [accept(f"user {nr}").user_id for nr in range(SLOTS)]
        eventually(lambda: len(events(log_lines, "slot_failed")) >= SLOTS)
    eventually(lambda: run.worker.runner._keeper.holdings == [])
    start()
    eventually(lambda: all(rows.is_settled(user) for user in users))


def _refuse(*_: object, **__: object) -> None:
    raise RuntimeError("can't start new thread")


# what a handler may rely on


def test_a_handler_may_start_a_process(start: Start, accept: Accept, rows: Rows) -> None:
    """In a thread of an executor its exit code was 1, whatever it did."""
    message = accept("alice", "process")
    start()
    eventually(lambda: rows.is_settled(message.user_id))
    assert rows.texts(message.user_id) == ["0"]


def test_a_thread_is_used_again_unless_it_failed_and_a_context_never(start: Start, accept: Accept, rows: Rows) -> None:
    """A database connection that a handler had left in a thread failed all later turns of the slot."""
    [user_id] = {accept("alice", "uses").user_id for _ in range(3)}
    slots = start(lock_ttl_s=60, quantum_s=60).slots
    eventually(lambda: rows.is_settled(user_id) and slots.free == SLOTS)
    assert rows.texts(user_id) == [f"thread {nr} context 1" for nr in (1, 2, 3)]
    bob = accept("bob", "uses").user_id
    eventually(lambda: rows.is_settled(bob) and slots.free == SLOTS)
    assert rows.texts(bob) == ["thread 4 context 1"]
    failed = accept("alice", "raise")
    eventually(lambda: rows.message(failed.message_id).attempts and slots.free == SLOTS)
    carol = accept("carol", "uses").user_id
    eventually(lambda: rows.is_settled(carol))
    assert rows.texts(carol) == ["thread 1 context 1"]


# handlers that hang


@pytest.mark.slow
def test_a_handler_that_hangs_is_given_up_once_and_its_late_result_is_dropped(
    start: Start, accept: Accept, rows: Rows, gate: Path, log_lines: Lines
) -> None:
    message = accept("alice", f"wait {gate}")
    run = start(turn_timeout_s=0.3)
    eventually(lambda: events(log_lines, "turn_failed"))
    ticks = _count(run.slots, "give_up_overdue")
    other = accept("bob")
    eventually(lambda: rows.is_settled(other.user_id) and len(ticks) > 3)
    assert len(events(log_lines, "turn_failed")) == 1
    assert rows.message(message.message_id).attempts == 1
    assert run.slots.free == SLOTS - 1
    assert not run.slots.are_all_stuck
    gate.touch()
    eventually(lambda: run.slots.free == SLOTS)
    assert len(events(log_lines, "turn_dropped")) == 1
    assert rows.texts(message.user_id) == []


def _count(owner: object, method: str) -> list[int]:
    """Note each call of a method from now on."""
    calls: list[int] = []
    original = getattr(owner, method)

    def counted(*args: object) -> Any:
        calls.append(1)
        return original(*args)

    setattr(owner, method, counted)
    return calls


@pytest.mark.slow
def test_a_worker_whose_every_slot_hangs_ends_with_75_and_releases_its_lanes(
    start: Start, accept: Accept, rows: Rows, services: Services, gate: Path, log_lines: Lines
) -> None:
    users = [accept(f"user {nr}", f"wait {gate}").user_id for nr in range(SLOTS)]
    run = start(turn_timeout_s=0.3)
    assert run.end() == EXIT_STUCK == 75
    assert [line["kind"] for line in events(log_lines, "worker_stuck")] == [keys.IN]
    assert [services.lanes.client.exists(keys.lock(user)) for user in users] == [0] * SLOTS
    assert [rows.states(user) for user in users] == [["received"]] * SLOTS


@pytest.mark.slow
def test_hanging_handlers_count_as_stuck_although_their_leases_were_lost(
    start: Start, accept: Accept, services: Services, gate: Path, log_lines: Lines
) -> None:
    users = [accept(f"user {nr}", f"wait {gate}").user_id for nr in range(SLOTS)]
    run = start(turn_timeout_s=2)
    eventually(lambda: run.slots.free == 0)
    services.lanes.client.flushall()
    eventually(lambda: len(events(log_lines, "lease_lost")) == SLOTS)
    assert run.end() == EXIT_STUCK
    assert {line["user_id"] for line in events(log_lines, "slot_stuck")} == {str(user) for user in users}


@pytest.mark.slow
@pytest.mark.parametrize("handler", ["handle", pytest.param("handle_async", marks=pytest.mark.slow)])
def test_a_turn_that_is_kept_in_a_read_of_ours_when_its_time_is_over_is_charged_nothing(
    handler: str, start: Start, accept: Accept, rows: Rows, log_lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres is silent or a table is locked; of two async handlers one waits for a thread to read in."""
    answers = threading.Event()
    monkeypatch.setattr(Sessions, "history", lambda *_: [] if answers.wait(DEADLINE_S) else None)
    monkeypatch.setattr(hosting, "READERS_MAX", 1)
    messages = [accept(sender, "history") for sender in ("alice", "bob")]
    start(handler=f"tests.bots:{handler}", turn_timeout_s=1)
    try:
        eventually(lambda: len(_users(log_lines, "store_unavailable") | _users(log_lines, "turn_failed")) == 2)
    finally:
        answers.set()
    assert events(log_lines, "turn_failed") == []
    eventually(lambda: all(rows.is_settled(message.user_id) for message in messages))
    assert [rows.texts(message.user_id) for message in messages] == [["0 lines"]] * 2
    assert [rows.message(message.message_id).attempts for message in messages] == [0, 0]


def _users(lines: Lines, name: str) -> set[str]:
    return {str(line["user_id"]) for line in events(lines, name)}


@pytest.mark.slow
def test_a_message_whose_every_attempt_hangs_holds_one_slot(
    start: Start, accept: Accept, rows: Rows, gate: Path
) -> None:
    """Each attempt hung in a thread of its own: one message took every slot, and the worker with them."""
    poison = accept("eve", f"wait {gate}")
    run = start(turn_timeout_s=0.3, attempts_max=4, retry_base_s=0.05, retry_max_s=0.1)
    eventually(lambda: rows.states(poison.user_id) == ["dead"])
    assert run.code is None
    assert run.slots.free == SLOTS - 1
    after, other = accept("eve", "after"), accept("bob")
    eventually(lambda: rows.is_settled(after.user_id) and rows.is_settled(other.user_id))
    assert run.slots.free == SLOTS - 1
    gate.touch()
    eventually(lambda: run.slots.free == SLOTS)


@pytest.mark.slow
def test_a_slot_that_waits_for_a_server_without_end_is_stuck_too(
    start: Start, accept: Accept, services: Services, rows: Rows, log_lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease was renewed for ever, beside a healthy worker."""
    monkeypatch.setattr("onelane.turns.stages.SERVERS_MAX_S", 0.5)
    deaf = start()
    answers = threading.Event()
    begin = deaf.worker.runner._slots._workplace.records.begin

    async def begins_late(*args: Any, **kwargs: Any) -> Any:
        await asyncio.to_thread(answers.wait, DEADLINE_S)
        return await begin(*args, **kwargs)

    monkeypatch.setattr(deaf.worker.runner._slots._workplace.records, "begin", begins_late)
    message = accept("alice")
    eventually(lambda: [line["stage"] for line in events(log_lines, "slot_stuck")] == ["begin"])
    start()
    eventually(lambda: rows.is_settled(message.user_id))
    answers.set()
    eventually(lambda: deaf.slots.free == SLOTS)
    assert len(rows.texts(message.user_id)) == 1
    assert rows.attempts_max() == 0


@pytest.mark.slow
def test_a_worker_that_was_stuck_ends_with_75_although_a_handler_returns_meanwhile(
    start: Start, accept: Accept, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended with 0, as if on purpose: its supervisor started no other."""
    for nr in range(SLOTS):
        accept(f"user {nr}", f"wait {gate}")
    run = start(turn_timeout_s=0.3)
    stop = run.worker.runner._keeper.stop

    def stop_as_handlers_return() -> None:
        gate.touch()
        eventually(lambda: run.slots.free == SLOTS)
        stop()

    monkeypatch.setattr(run.worker.runner._keeper, "stop", stop_as_handlers_return)
    assert run.end() == EXIT_STUCK


# burst, suspend, stop


def test_a_burst_ends_when_nothing_is_due(start: Start, accept: Accept, rows: Rows) -> None:
    for nr in range(SLOTS * 5):
        accept(f"user {nr}")
    failing = accept("eve", "raise")  # it is due again in ten minutes, which nobody waits for
    assert start(burst=True).end() == 0
    assert rows.waiting() == 1
    assert rows.message(failing.message_id).attempts == 1


@pytest.mark.slow
def test_a_burst_waits_for_the_turns_at_hand(start: Start, accept: Accept, rows: Rows, gate: Path) -> None:
    accept("alice", f"wait {gate}")
    run = start(burst=True)
    eventually(lambda: run.slots.free == SLOTS - 1)
    calls = _count(run.worker.runner._dispatchers[0], "_lease")
    eventually(lambda: len(calls) > 1)
    assert run.code is None
    gate.touch()
    assert run.end() == 0
    assert rows.waiting() == 0


def test_a_burst_does_not_wait_for_a_handler_that_hangs(start: Start, accept: Accept, rows: Rows, gate: Path) -> None:
    accept("alice", f"wait {gate}")
    other = accept("bob")
    assert start(burst=True, turn_timeout_s=0.8).end() == 0
    assert rows.is_settled(other.user_id)


@pytest.mark.slow
def test_a_suspended_worker_takes_nothing_and_goes_on_when_resumed(
    start: Start, accept: Accept, rows: Rows, services: Services
) -> None:
    run = start()
    suspend(services.lanes.client)
    eventually(lambda: run.worker.runner._registration.is_suspended)
    message = accept("alice")
    leases = _count(run.worker.runner._dispatchers[0], "_lease")
    beats = _count(run.worker.runner._registration, "beat")
    eventually(lambda: len(beats) > 1)
    assert leases == []
    assert rows.states(message.user_id) == ["received"]
    assert run.slots.free == SLOTS
    resume(services.lanes.client)
    eventually(lambda: rows.is_settled(message.user_id))


@pytest.mark.slow
def test_a_suspended_worker_finishes_the_turns_at_hand(
    start: Start, accept: Accept, rows: Rows, services: Services, gate: Path
) -> None:
    message = accept("alice", f"wait {gate}")
    run = start()
    eventually(lambda: run.slots.free == SLOTS - 1)
    suspend(services.lanes.client)
    eventually(lambda: run.worker.runner._registration.is_suspended)
    gate.touch()
    eventually(lambda: rows.is_settled(message.user_id))
    resume(services.lanes.client)


def test_an_idle_worker_stops_with_0(start: Start, services: Services, log_lines: Lines) -> None:
    run = start()
    eventually(lambda: services.lanes.client.smembers("rq:workers"))
    assert run.stop() == 0
    assert services.lanes.client.smembers("rq:workers") == set()
    assert [line["event"] for line in log_lines if line["event"].startswith("worker_")] == [
        "worker_started",
        "worker_stopping",
        "worker_stopped",
    ]


@pytest.mark.slow
def test_a_lane_at_hand_when_the_grace_is_over_is_handed_back_without_an_attempt(
    start: Start, accept: Accept, rows: Rows, services: Services, gate: Path
) -> None:
    message = accept("alice", f"wait {gate}")
    run = start(lock_ttl_s=60)
    eventually(lambda: run.slots.free == SLOTS - 1)
    assert run.stop() == 0
    assert services.lanes.client.exists(keys.lock(message.user_id)) == 0
    assert rows.message(message.message_id).attempts == 0
    gate.touch()
    start()
    eventually(lambda: rows.is_settled(message.user_id))
    assert len(rows.texts(message.user_id)) == 1


@pytest.mark.slow
def test_a_dispatcher_that_hangs_ends_the_process(
    start: Start, monkeypatch: pytest.MonkeyPatch, log_lines: Lines
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(periodic, "LIMIT_S", 2)
    monkeypatch.setattr(Lanes, "lease", lambda *_: hangs.wait(DEADLINE_S))
    assert start().end() == EXIT_STUCK
    assert [line["task"] for line in events(log_lines, "worker_hopeless")] == ["dispatcher"]
    hangs.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dispatcher_that_dies_ends_the_process_so_that_another_begins(
    start: Start, monkeypatch: pytest.MonkeyPatch, log_lines: Lines
) -> None:
    def dies(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(Lanes, "lease", dies)
    assert start().end() == EXIT_STUCK
    assert [line["task"] for line in events(log_lines, "worker_hopeless")] == ["dispatcher"]


@pytest.mark.slow
def test_a_task_that_no_new_thread_helps_ends_the_process(
    start: Start, monkeypatch: pytest.MonkeyPatch, log_lines: Lines
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(periodic, "LIMIT_S", 1)
    monkeypatch.setattr(dispatcher, "IDLE_WAIT_MAX_S", 0.05)  # the dispatcher's wait is none that hangs
    monkeypatch.setattr(Duties, "round", lambda _duties: hangs.wait(DEADLINE_S))
    assert start().end() == EXIT_STUCK
    assert "duties" in {line["task"] for line in events(log_lines, "task_stuck")}
    assert [line["task"] for line in events(log_lines, "worker_hopeless")] == ["duties"]
    hangs.set()
