"""The end of a worker process: when it is to be gone, and the last resort that sees to it."""

import faulthandler
import threading
import time
from collections.abc import Callable
from math import inf
from typing import Final

from onelane.config import Settings

ENDS_S = 4.0
"""What ending takes at most after the grace: on dynos, and with the default grace, it leaves a second of 25."""
EARLY_S: Final = 0.5
"""By so much what may be left out ends before the last resort."""
LAST_RESORT_MIN_S: Final = 0.1
STDERR_FD: Final = 2


class Ending:
    """One process's end: never, unless it is asked for or the process stands still."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asked_at: float | None = None

    def ask_for(self) -> None:
        """Let the grace begin, unless it has.

        Safe in a signal handler, which a further signal may interrupt: no lock is taken. An event has one, and would
        wait for itself for ever.
        """
        if self._asked_at is None:
            self._asked_at = time.monotonic()

    @property
    def is_asked_for(self) -> bool:
        """Whether the process is to end."""
        return self._asked_at is not None

    @property
    def grace_ends_at(self) -> float:
        """When the turns at hand are to have ended, on the monotonic clock."""
        return inf if self._asked_at is None else self._asked_at + self._settings.shutdown_grace_s

    @property
    def _ends_at(self) -> float:
        return self.grace_ends_at + ENDS_S

    def put_off(self) -> None:
        """Put off the last resort, within bounds: a process whose keeper gets no CPU, or that does not end, ends.

        It needs neither Python's lock nor a thread of ours, so nothing that hangs can hold it up.
        """
        left_s = max(LAST_RESORT_MIN_S, self._ends_at - time.monotonic())
        faulthandler.dump_traceback_later(min(self._settings.stall_limit_s, left_s), exit=True, file=STDERR_FD)

    def while_there_is_time(self, act: Callable[[], object]) -> None:
        """Do what a server may keep waiting; what of it is not done by the end is not needed."""
        acting = threading.Thread(target=act, name="farewell", daemon=True)
        acting.start()
        acting.join(max(0.0, self._ends_at - EARLY_S - time.monotonic()))

    def disarm(self) -> None:
        """Take the last resort back, once everything is closed."""
        faulthandler.cancel_dump_traceback_later()
