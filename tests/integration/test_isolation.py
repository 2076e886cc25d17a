"""A suspect's child process, whatever it does: its turn ends in time, its place is free again, and it is gone."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from onelane.bootstrap import Services
from onelane.bot.memory import Memory
from onelane.config import Channel, Settings
from onelane.errors import HandlerFailed, IsolationBroken, OnelaneError, StoreUnavailable
from onelane.history import Line, Role
from onelane.lanes.holding import Holding
from onelane.model import Attachment, JsonObject, Lease, TurnRead
from onelane.operations.snapshot import Survey
from onelane.sessions import Sessions
from onelane.turns.isolated import FILES_MAX
from onelane.turns.isolation import CHILDREN_MAX, DEATH_S, Isolation, _Child
from onelane.turns.memory import TurnMemory
from onelane.turns.records import Records
from tests import loops
from tests.conftest import DEADLINE_S, Accept, eventually, slow_after
from tests.processes import worker_process
from tests.rows import Rows

Begin = Callable[[str], tuple[TurnRead, Holding]]
Run = Callable[..., JsonObject]

TURN_TIMEOUT_S = 3.0
PATIENCE_S = 60.0
"""A turn's time where it plays no part."""
FRAME = '{"text": ""}'
TIMES_S = (TURN_TIMEOUT_S, 15.0, 45.0)
BUSY_S = 10.0
"""What a busy machine may add to a bound."""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The processes that a handler ran in; all that live on are ended after the test."""
    path = tmp_path / "notes"
    monkeypatch.setenv("ESCAPEE_NOTES", str(path))
    yield path
    for pid in alive(path):
        os.kill(pid, signal.SIGKILL)


def alive(notes: Path) -> list[int]:
    """List the noted processes that live; a zombie does not."""
    return [pid for pid in map(int, notes.read_text().split()) if _lives(pid)] if notes.exists() else []


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def isolation_of(settings: Settings, handler: str) -> Isolation:
    return Isolation(settings.model_copy(update={"handler": handler, "turn_timeout_s": PATIENCE_S}))


@pytest.fixture
def isolation(settings: Settings) -> Isolation:
    return isolation_of(settings, "tests.escapees:handle")


@pytest.fixture
def strict(isolation: Isolation) -> Isolation:
    """Isolation with a time that a test can wait for."""
    isolation._turn_timeout_s = TURN_TIMEOUT_S
    return isolation


@pytest.fixture
def begin(services: Services, settings: Settings, accept: Accept) -> Begin:
    """Accept a message and begin its turn."""

    def begin(text: str) -> tuple[TurnRead, Holding]:
        accepted = accept(f"user {uuid4()}", text)
        lease = Lease(user_id=accepted.user_id, token="a:1", fence=1)
        turn = loops.run(Records(settings, services.database, threading.Event()).begin(lease, None, is_first=True)).turn
        assert turn is not None
        assert turn.message.text == text
        return turn, Holding(lease)

    return begin


@pytest.fixture
def run(isolation: Isolation, begin: Begin, services: Services) -> Run:
    """Run one message in a child, in a place as a slot does."""

    def run(text: str, holding: Holding | None = None, **states: Any) -> JsonObject:
        turn, own = begin(text)
        turn = turn.model_copy(
            update={
                "session": turn.session.model_copy(update={"state": states.get("session_state", {})}),
                "user": turn.user.model_copy(update={"state": states.get("user_state", {})}),
            }
        )
        with isolation.place() as has_place:
            assert has_place
            return isolation.run(turn, holding or own, TurnMemory(services.sessions, turn, own.lease))

    return run


class Remembered(Memory):
    """A memory of these lines alone."""

    def __init__(self, lines: list[Line]) -> None:
        self._lines = lines

    def history(self, session_id: UUID, limit: int) -> list[Line]:
        return self._lines[:limit]

    def tool_output(self, session_id: UUID, name: str) -> Any:
        return None


def places_free(isolation: Isolation) -> int:
    """Count the places that could be taken now."""
    taken = 0
    while isolation._places.acquire(blocking=False):
        taken += 1
    for _ in range(taken):
        isolation._places.release()
    return taken


def text_of(effects: JsonObject) -> Any:
    return effects["replies"][0]["text"]


FAILURES = [
    ("close", "closed its connection"),
    ("stop-within", "did not finish in time"),
    ("deep", "cannot be read"),
    ("eat", "held more than 512 MB of memory"),
    # from here on in the slow run
    ("fork-and-close", "did not finish in time"),
    ("never-read", "did not finish in time"),
    ("other", "not of our protocol"),
    ("exit 3", "died with exit code 3"),
    ("eat apart", "held more than 512 MB of memory"),
    ("sleep", "did not finish in time"),
    ("fork", "did not finish in time"),
    ("stop", "did not finish in time"),
    ("endless", "did not finish in time"),
    ("ask", "did not finish in time"),
    ("garbage", "cannot be read"),
    ("too-long", "cannot be read"),
    ("null", "not of our protocol"),
    ("deep-value 100000", "RecursionError"),
    ("exit 0", "died with exit code 0"),
    ("kill", "died of signal 9"),
    ("output", "DataError"),
    ("unknown", "KeyError"),
]


@pytest.mark.parametrize(("text", "failure"), slow_after(4, FAILURES))
def test_a_turn_fails_within_its_time_and_leaves_nothing_behind(
    text: str, failure: str, run: Run, strict: Isolation, notes: Path
) -> None:
    for time_s in TIMES_S:  # on a busy machine a child may not come to what its handler does within the shortest
        notes.unlink(missing_ok=True)
        strict._turn_timeout_s = time_s
        began = time.monotonic()
        with pytest.raises(HandlerFailed) as failed:
            run(text)
        assert time.monotonic() - began < time_s + DEATH_S + BUSY_S
        if notes.exists() and re.search(failure, str(failed.value)):
            break
    assert re.search(failure, str(failed.value))
    assert len(notes.read_text().split()) == (2 if "fork" in text else 1), "the handler did what it was to do"
    eventually(lambda: not alive(notes))
    assert places_free(strict) == CHILDREN_MAX


@pytest.mark.slow
def test_a_grandchild_that_leaves_the_group_holds_nothing_up(run: Run, strict: Isolation, notes: Path) -> None:
    began = time.monotonic()
    with pytest.raises(HandlerFailed, match="did not finish in time"):
        run("fork free")
    assert time.monotonic() - began < TURN_TIMEOUT_S + DEATH_S + BUSY_S
    assert places_free(strict) == CHILDREN_MAX
    assert len(alive(notes)) == 1  # the test ends it


def test_a_grandchild_of_a_turn_that_ends_well_ends_with_it(run: Run, notes: Path) -> None:
    assert text_of(run("grandchild")) == "answered"
    eventually(lambda: not alive(notes))


@pytest.mark.parametrize("text", slow_after(1, ["fall", "fall async"]))
def test_a_grandchild_that_leaves_the_handler_answers_nothing(text: str, run: Run) -> None:
    assert text_of(run(text)) == "ours"


@pytest.mark.slow
@pytest.mark.parametrize("text", slow_after(1, ["close", "stop-within", "fork-and-close", "endless", "kill"]))
def test_isolation_goes_on_after_as_many_hostile_messages_as_it_has_places(
    text: str, run: Run, strict: Isolation, begin: Begin
) -> None:
    def hostile(begun: TurnRead, holding: Holding) -> None:
        with strict.place() as has_place:
            assert has_place
            with pytest.raises(HandlerFailed):
                strict.run(begun, holding, Remembered([]))
            ended.append(begun)

    ended: list[TurnRead] = []
    slots = [threading.Thread(target=hostile, args=begin(text)) for _ in range(CHILDREN_MAX)]
    for slot in slots:
        slot.start()
    eventually(lambda: places_free(strict) == 0)
    with strict.place() as has_place:
        assert not has_place
    for slot in slots:
        slot.join(DEADLINE_S)
    assert len(ended) == CHILDREN_MAX
    strict._turn_timeout_s = PATIENCE_S
    assert text_of(run("echo hello")) == "hello"


@pytest.mark.parametrize("letter", slow_after(1, ["é", "x", "😀"]))
@pytest.mark.parametrize("size", [600_000, 3_000_000])
def test_a_large_state_passes_to_the_child_whole(size: int, letter: str, run: Run) -> None:
    state = {"text": letter * (size // len(letter.encode()))}
    answer = text_of(run("sizes", session_state=state, user_state={}))
    assert answer == f"{size + len(FRAME)} 2"


@pytest.mark.slow
def test_both_states_pass_at_the_largest_that_a_turn_may_store(run: Run) -> None:
    state = {"text": "\x01" * 160_000}  # each takes six bytes of JSON
    answer = text_of(run("sizes", session_state=state, user_state=state))
    assert answer == "960012 960012"


def test_a_turn_and_its_history_may_be_larger_than_what_a_turn_may_store(isolation: Isolation, begin: Begin) -> None:
    turn, holding = begin("history 50")
    message = turn.message.model_copy(update={"attachments": (Attachment(url="x" * 5_000_000),)})
    line = Line(role=Role.USER, seq=1, at=turn.message.accepted_at, text="x" * 200_000)
    effects = isolation.run(turn.model_copy(update={"messages": (message,)}), holding, Remembered([line] * 50))
    assert text_of(effects) == "50"


@pytest.mark.slow
def test_a_long_import_takes_nothing_of_the_turns_time(
    run: Run, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESCAPEE_IMPORT_S", "2.5")
    isolation._turn_timeout_s = 2
    assert text_of(run("sizes", session_state={"text": "x" * 600_000}, user_state={})) == f"{600_000 + len(FRAME)} 2"


@pytest.mark.slow
def test_a_handler_with_many_threads_needs_address_space_and_little_memory(run: Run, isolation: Isolation) -> None:
    isolation._memory_mb = 128
    assert int(text_of(run("threads 16"))) > 1_000


def test_a_lost_lease_ends_the_child_at_once(run: Run, notes: Path) -> None:
    holding = Holding(Lease(user_id=UUID("6a2f6d4e-5a0c-5d1b-9f1e-1c8a37f0b1de"), token="a:1", fence=1))
    failures = []

    def fail() -> None:
        with pytest.raises(HandlerFailed) as failed:
            run("never-read", holding)
        failures.append(str(failed.value))

    slot = threading.Thread(target=fail)
    slot.start()
    eventually(lambda: alive(notes))
    holding.cancel()
    slot.join(DEADLINE_S)
    assert failures == ["the turn was cancelled"]
    eventually(lambda: not alive(notes))


def test_a_lease_that_was_lost_before_runs_nothing(run: Run, notes: Path) -> None:
    holding = Holding(Lease(user_id=UUID("6a2f6d4e-5a0c-5d1b-9f1e-1c8a37f0b1de"), token="a:1", fence=1))
    holding.cancel()
    with pytest.raises(HandlerFailed, match="cancelled"):
        run("sleep", holding)
    assert not notes.exists()


def test_a_platforms_signals_to_every_process_convict_no_message(run: Run) -> None:
    assert text_of(run("signals")) == "alive"


@pytest.mark.slow
def test_a_child_has_its_limit_of_files_and_no_terminal(run: Run) -> None:
    assert text_of(run("files")) == str(FILES_MAX)
    assert text_of(run("terminal")) == ""


@pytest.mark.slow
def test_a_child_that_cannot_be_started_is_no_failure_of_the_message(
    begin: Begin, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onelane.turns.isolation.DEATH_S", PATIENCE_S)  # on a busy machine an end takes its time
    broken = isolation_of(settings, "tests.broken_apart:handle")
    with pytest.raises(IsolationBroken, match="exit code 1"):
        broken.run(*begin("echo hello"), Remembered([]))
    assert broken.state == "tests.broken_apart:handle: the handler's process died with exit code 1 before it was ready"


@pytest.mark.slow
def test_every_channels_handler_is_tried_and_the_one_that_cannot_start_is_named(settings: Settings) -> None:
    broken = Channel(provider="standard", handler="tests.broken_apart:handle")
    isolation = isolation_of(settings.model_copy(update={"channels": {"broken": broken}}), "tests.escapees:handle")
    assert isolation.state == ""
    isolation.probe()
    assert isolation.state.startswith("tests.broken_apart:handle: ")
    assert "tests.escapees" not in isolation.state


@pytest.mark.slow
def test_a_machine_that_starts_no_process_is_no_failure_of_the_message(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(IsolationBroken, match="BlockingIOError"):
        run("echo hello")


def test_a_child_that_takes_too_long_to_start_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESCAPEE_IMPORT_S", "60")
    monkeypatch.setattr("onelane.turns.isolation.STARTS_MAX_S", 0.01)
    with pytest.raises(IsolationBroken, match="did not start within"):
        run("echo hello")


@pytest.mark.slow
def test_where_no_child_can_be_started_a_worker_says_so_at_once_and_suspects_wait_without_an_attempt(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    suspect, bystander = accept("suspect"), accept("bystander")
    rows.set_deaths(suspect.message_id, 2)
    log = tmp_path / "worker.log"
    with worker_process(settings, handler="tests.broken_apart:handle", log=log):
        eventually(lambda: rows.is_settled(bystander.user_id))
        eventually(lambda: {"isolation_broken", "suspect_postponed"} <= set(re.findall(r"\w+", log.read_text())))
        eventually(lambda: "exit code 1" in Survey(services.lanes).snapshot().workers[0].isolation)
    [waiting] = rows.inbound(suspect.user_id)
    assert (waiting.state, waiting.attempts, waiting.deaths) == ("received", 0, 2)


@pytest.mark.slow
def test_a_child_dies_with_its_worker(rows: Rows, settings: Settings, accept: Accept, notes: Path) -> None:
    suspect = accept("suspect", "sleep")
    rows.set_deaths(suspect.message_id, 2)
    with worker_process(settings, handler="tests.escapees:handle") as worker:
        eventually(lambda: alive(notes))
        os.kill(worker.pid, signal.SIGKILL)
        eventually(lambda: not alive(notes))


@pytest.mark.slow
def test_a_child_whose_parent_has_given_it_up_before_it_was_ready_ends_in_silence() -> None:
    ours, theirs = Pipe()
    ours.close()
    command = [sys.executable, "-m", "onelane.turns.isolated", "tests.bots:handle", str(theirs.fileno())]
    child = subprocess.run([*command, str(os.getpid())], pass_fds=[theirs.fileno()], capture_output=True, check=False)
    theirs.close()
    assert (child.returncode, child.stdout, child.stderr) == (0, b"", b"")


def test_a_child_reads_its_session_through_its_parent(run: Run, services: Services) -> None:
    assert text_of(run("history 10")) == "0"


@pytest.mark.slow
def test_a_child_that_waits_for_a_read_when_its_time_is_over_is_not_to_blame(
    strict: Isolation, begin: Begin, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()
    give_up = _Child.give_up

    def give_up_and_answer(child: _Child, why: OnelaneError) -> None:
        give_up(child, why)
        is_over.set()

    monkeypatch.setattr(_Child, "give_up", give_up_and_answer)
    monkeypatch.setattr(Sessions, "history", lambda *_: [] if is_over.wait(DEADLINE_S) else None)
    turn, holding = begin("history 10")
    with pytest.raises(StoreUnavailable):
        strict.run(turn, holding, TurnMemory(services.sessions, turn, holding.lease))


@pytest.mark.slow
def test_no_descriptor_is_left_open(run: Run, isolation: Isolation) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    run("echo 1")
    before = count()
    for text in ("echo 2", "close", "kill", "garbage"):
        if text.startswith("echo"):
            run(text)
        else:
            with pytest.raises(HandlerFailed):
                run(text)
    assert count() <= before
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer) and thread.is_alive()]
