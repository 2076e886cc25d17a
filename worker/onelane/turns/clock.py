"""The time by which turns are measured: that in which this process works.

A process that was stopped (SIGSTOP, a machine that moved), or got no CPU, has not let any handler work either: what a
turn could not use of its time is none of it.
"""

import time
from collections.abc import Callable
from typing import Final

STANDS_STILL_S: Final = 1.0
"""Without a tick for so long the process did not work. The watch ticks four times as often."""


class WorkingClock:
    """A monotonic clock that goes on for `STANDS_STILL_S` after each tick; before the first tick, by itself.

    One thread ticks. Others read two numbers that it replaces together.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._ticked: tuple[float, float] | None = None
        """When the last tick was, on the monotonic clock and on this one."""

    def tick(self) -> None:
        """Note that the process works."""
        now = self._monotonic()
        self._ticked = (now, self._at(now))

    def now(self) -> float:
        """Return the time in seconds."""
        return self._at(self._monotonic())

    def _at(self, now: float) -> float:
        if self._ticked is None:
            return now
        ticked_at, shown = self._ticked
        return shown + min(now - ticked_at, STANDS_STILL_S)
