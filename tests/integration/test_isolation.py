"""A suspect's child process, whatever it does: its turn ends in time, its place is free again, and it is gone."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.errors import HandlerFailed
from onelane.lanes.holding import Holding
from onelane.model import JsonObject, Lease, TurnRead
from onelane.turns.isolation import CHILDREN_MAX, DEATH_S, Isolation
from onelane.turns.records import Records
from tests.conftest import DEADLINE_S, Accept, eventually, slow_after

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


@pytest.fixture
def isolation() -> Isolation:
    return Isolation("tests.escapees:handle", memory_mb=512, turn_timeout_s=PATIENCE_S)


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
        turn = Records(settings, services.database).begin(lease, None, is_first=True).turn
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
            return isolation.run(turn, holding or own, services.sessions)

    return run


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
    ("fork-and-close", "did not finish in time"),
    ("stop-within", "did not finish in time"),
    ("never-read", "did not finish in time"),
    ("deep", "cannot be read"),
    ("other", "not of our protocol"),
    ("exit 3", "died with exit code 3"),
    ("eat", "MemoryError"),
    # from here on in the slow run
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


@pytest.mark.parametrize(("text", "failure"), slow_after(8, FAILURES))
def test_a_turn_fails_within_its_time_and_leaves_nothing_behind(
    text: str, failure: str, run: Run, strict: Isolation, notes: Path
) -> None:
    for time_s in TIMES_S:  # on a busy machine a child may not have come to its handler within the shortest
        strict._turn_timeout_s = time_s
        began = time.monotonic()
        with pytest.raises(HandlerFailed) as failed:
            run(text)
        assert time.monotonic() - began < time_s + DEATH_S + BUSY_S
        if notes.exists():
            break
    assert re.search(failure, str(failed.value))
    assert len(notes.read_text().split()) == (2 if "fork" in text else 1), "the handler did what it was to do"
    eventually(lambda: not alive(notes))
    assert places_free(strict) == CHILDREN_MAX


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


@pytest.mark.parametrize("text", slow_after(2, ["close", "stop-within", "fork-and-close", "endless", "kill"]))
def test_isolation_goes_on_after_as_many_hostile_messages_as_it_has_places(
    text: str, run: Run, strict: Isolation, begin: Begin, services: Services
) -> None:
    def hostile(begun: TurnRead, holding: Holding) -> None:
        with strict.place() as has_place:
            assert has_place
            with pytest.raises(HandlerFailed):
                strict.run(begun, holding, services.sessions)
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


def test_both_states_pass_at_the_largest_that_a_turn_may_store(run: Run) -> None:
    state = {"text": "\x01" * 160_000}  # each takes six bytes of JSON
    answer = text_of(run("sizes", session_state=state, user_state=state))
    assert answer == "960012 960012"


def test_a_state_that_is_too_large_to_pass_fails_the_turn(run: Run, isolation: Isolation) -> None:
    with pytest.raises(HandlerFailed, match="ValueError"):
        run("sizes", session_state={"text": "x" * 4_000_000})
    assert places_free(isolation) == CHILDREN_MAX


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


def test_a_child_has_its_limit_of_memory_and_no_terminal(run: Run) -> None:
    assert text_of(run("limit")) == str(512 * 2**20)
    assert text_of(run("terminal")) == ""


def test_a_child_reads_its_session_through_its_parent(run: Run, services: Services) -> None:
    assert text_of(run("history 10")) == "0"


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
