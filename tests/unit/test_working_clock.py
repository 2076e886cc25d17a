"""The clock of turns: it goes on while the process works, and not while it is stopped."""

import pytest

from onelane.turns.clock import STANDS_STILL_S, WorkingClock


class Monotonic:
    """What the system's monotonic clock shows."""

    def __init__(self) -> None:
        self.shows = 100.0

    def __call__(self) -> float:
        return self.shows


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def clock(monotonic: Monotonic) -> WorkingClock:
    return WorkingClock(monotonic)


def test_it_goes_on_from_tick_to_tick(monotonic: Monotonic, clock: WorkingClock) -> None:
    for _ in range(8):
        clock.tick()
        monotonic.shows += 0.25
    assert clock.now() == 102


def test_what_passes_without_a_tick_is_no_time(monotonic: Monotonic, clock: WorkingClock) -> None:
    clock.tick()
    monotonic.shows += 60
    assert clock.now() == 100 + STANDS_STILL_S, "whoever looks first after the stop, before the next tick"
    clock.tick()
    assert clock.now() == 100 + STANDS_STILL_S
    monotonic.shows += 0.25
    assert clock.now() == 100.25 + STANDS_STILL_S


def test_where_nobody_ticks_it_is_the_systems(monotonic: Monotonic, clock: WorkingClock) -> None:
    monotonic.shows += 60
    assert clock.now() == 160
