"""A bound on the lines of the log that strangers cause: nobody fills it by sending what is refused."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from onelane.telemetry.log import event

LINES_MAX: Final = 60
WINDOW_S: Final = 60.0
"""From a kind's first line on. All refusals are counted, whether or not they are logged."""


@dataclass
class Window:
    """What was logged of one kind since `began`."""

    began: float
    logged: int = 0
    left_out: int = 0


class FewLines:
    """Allows so many lines of each kind in a window of time; the first of the next follows how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without any."""
        self._clock = clock
        self._lock = Lock()
        self._windows: dict[str, Window] = {}
        """By the name of an event: they are few. Threads of the web share it, under the lock."""

    def allow(self, kind: str) -> bool:
        """Whether an event may be logged now."""
        with self._lock:
            window, left_out = self._window(kind)
            is_allowed = window.logged < LINES_MAX
            window.logged += is_allowed
            window.left_out += not is_allowed
        if left_out:
            event("lines_left_out", kind=kind, lines=left_out)
        return is_allowed

    def _window(self, kind: str) -> tuple[Window, int]:
        """Return the window of now, and how many lines were left out in the one that it follows."""
        now, window = self._clock(), self._windows.get(kind)
        if window and now - window.began < WINDOW_S:
            return window, 0
        new = self._windows[kind] = Window(now)
        return new, window.left_out if window else 0
