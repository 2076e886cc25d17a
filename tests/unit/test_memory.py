"""Whether Postgres keeps a turn from reading: what decides about a turn whose time is over."""

from typing import Any
from uuid import uuid4

import pytest

from onelane.errors import StoreUnavailable
from onelane.model import Lease
from onelane.turns import memory
from onelane.turns.memory import HELD_UP_S, TurnMemory
from tests.unit.test_hosting import turn_read


class Clock:
    """A monotonic clock that a test moves on."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


class Sessions:
    """Sessions that answer, or do not."""

    is_away = False

    def history(self, *_: object) -> list[Any]:
        if self.is_away:
            raise StoreUnavailable
        return []

    def is_current(self, *_: object) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(memory, "time", clock)
    return clock


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def reads(sessions: Sessions, clock: Clock) -> TurnMemory:
    return TurnMemory(sessions, turn_read(""), Lease(user_id=uuid4(), token="w:1", fence=1))  # type: ignore[arg-type]


def test_a_read_is_an_outage_once_it_is_held_up_and_as_long_as_it_lasts(reads: TurnMemory, clock: Clock) -> None:
    with reads.reading():
        clock.now += HELD_UP_S / 2
        assert [reads.outage] == [None], "the handler began it as its time ended"
        with reads.reading():
            clock.now += HELD_UP_S
        assert isinstance(reads.outage, StoreUnavailable)
    assert [reads.outage] == [None], "the handler hangs elsewhere"


def test_what_a_read_was_held_up_for_is_no_time_of_the_handler(reads: TurnMemory, clock: Clock) -> None:
    with reads.reading():
        clock.now += HELD_UP_S / 2
    assert reads.held_s == 0
    with reads.reading():
        clock.now += 3
    clock.now += 1
    assert reads.held_s == 3
    assert [reads.outage] == [None]


def test_what_a_turn_waits_for_at_once_is_counted_once(reads: TurnMemory, clock: Clock) -> None:
    with reads.keeping():
        with reads.reading():
            clock.now += 1
            with reads.reading():
                clock.now += 3
            clock.now += 1
        clock.now += 1
        assert reads.held_s == 6
    assert reads.held_s == 6


def test_a_read_that_failed_is_an_outage_until_another_succeeds(reads: TurnMemory, sessions: Sessions) -> None:
    sessions.is_away = True
    with pytest.raises(StoreUnavailable) as met:
        reads.history(uuid4(), 1)
    assert [reads.outage] == [met.value]
    sessions.is_away = False
    reads.history(uuid4(), 1)
    assert [reads.outage] == [None]
