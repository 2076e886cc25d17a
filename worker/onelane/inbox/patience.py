"""How long a request waits for its lines: until its end, or, while Postgres hangs, only if few others do."""

import time
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore
from typing import Final

from onelane.gathering import Gatherer
from onelane.model import JsonObject

HANGS_S: Final = 1.0
"""When Postgres has answered nobody for so long, few requests wait on, and the others are refused. Not sooner: a
checkpoint takes a moment, and not every provider delivers again."""
PATIENT_MAX: Final = 2
"""So many of a process: of its four threads two are left to say to others that they come too early."""

Answer = Future[JsonObject]


class Patience:
    """That of all requests of a process."""

    def __init__(self, gatherer: Gatherer) -> None:
        """`gatherer` is what they wait for."""
        self._gatherer = gatherer
        self._places = BoundedSemaphore(PATIENT_MAX)

    def wait(self, answered: "SimpleQueue[Answer]", ends: float) -> list[Answer]:
        """Take all that is answered, and wait for the first; none: there was none in time, or enough others wait."""
        while True:
            hangs_in_s = HANGS_S - self._gatherer.stands_still_s()
            if done := _all_in(answered, min(ends - time.monotonic(), hangs_in_s)):
                return done
            if time.monotonic() >= ends:
                return []
            if self._gatherer.stands_still_s() >= HANGS_S:
                return self._wait_on(answered, ends)

    def _wait_on(self, answered: "SimpleQueue[Answer]", ends: float) -> list[Answer]:
        if not self._places.acquire(blocking=False):
            return []
        try:
            return _all_in(answered, ends - time.monotonic())
        finally:
            self._places.release()


def _all_in(answered: "SimpleQueue[Answer]", within_s: float) -> list[Answer]:
    """Take all that is in the queue, in its order, and wait for the first; none: there was none in time."""
    taken: list[Answer] = []
    try:
        while True:
            taken.append(answered.get(timeout=0 if taken else max(0.0, within_s)))
    except Empty:
        return taken
