"""The lanes' clock, as one process keeps it between two calls by its own monotonic clock, which never steps.

Redis' clock may be set back or ahead while lanes wait and leases live. The scripts are told what time to expect, and
take the difference out of the lanes' clock (`confirmed_clock` in `lua/prelude.lua`). What is expected is never too
early: it is counted from before the question to Redis whose answer it begins with.
"""

import time
from typing import Final

from onelane.lanes.scripts import Scripts
from onelane.telemetry.log import event

CALLED_BACK_MAX: Final = 100
"""Lanes in one call: the next round does the next."""


class LanesClock:
    """What one caller knows of the lanes' clock. Used by one thread."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None
        """Of this process's clock."""
        self._asked_at_ms = 0.0

    def expected(self) -> int | str:
        """Answer the lanes' time in ms, as an argument of the script that is called next; nothing before the first."""
        self._asked_at_ms = monotonic_ms()
        return "" if self._ahead_ms is None else round(self._asked_at_ms + self._ahead_ms)

    def note(self, now_ms: float) -> None:
        """Take the lanes' time from the answer."""
        self._ahead_ms = now_ms - self._asked_at_ms


def read_ms(scripts: Scripts) -> float:
    """Read the lanes' clock, of which all scores and leases are times."""
    return float(scripts.run("now", ""))


def call_back(scripts: Scripts, ahead_s: float) -> int:
    """Make lanes due that wait for longer than `ahead_s`; return how many."""
    return int(scripts.run("call_back", "", round(ahead_s * 1000), CALLED_BACK_MAX))


def note_step(stepped_ms: float) -> None:
    """Log that Redis' clock has stepped, if it has."""
    if stepped_ms:
        event("clock_stepped", seconds=stepped_ms / 1000)


def monotonic_ms() -> float:
    """Read the clock that nobody sets."""
    return time.monotonic() * 1000
