"""Put what is committed on its lanes; while Redis is away or slow, nobody who is to be answered waits for that."""

import threading
import time
from collections.abc import Sequence
from math import inf
from typing import Final

from onelane.errors import reason_of
from onelane.lanes.arrivals import Arrival
from onelane.lanes.lanes import MANY_MAX, Lanes
from onelane.telemetry.log import event

REDIS_REST_S: Final = 1.0
SLOW_S: Final = 0.1
"""Calls that take longer would keep a web's few threads from its webhooks."""
POSTPONED_MAX: Final = 10_000


class Enqueueing:
    """That of all threads of a process, on the lanes of one kind."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._rest_until = 0.0
        self._is_slow = False
        """Whether the last call was: then one at a time waits for Redis, and takes along what the others leave."""
        self._under_way = 0
        self._postponed: list[Arrival] = []
        self._guard = threading.Lock()
        """Guards all of these, while nobody waits."""

    def enqueue(self, messages: Sequence[Arrival], ends: float = inf) -> None:
        """Update Redis, as `Lanes.enqueue_many`; raise nothing.

        While it is away or slow, or from `ends` on, by the monotonic clock, leave it to whoever comes next.
        """
        for start in range(0, len(messages), MANY_MAX):
            if not self._goes(messages[start : start + MANY_MAX], ends):
                self._postpone(messages[start:])
                return
        if messages and (left := self._taken(MANY_MAX)) and not self._goes(left, ends):
            self._postpone(left)

    def enqueue_postponed(self) -> None:
        """Enqueue what was left: called again and again, and mostly nothing to do."""
        self.enqueue(self._taken(POSTPONED_MAX))

    def _goes(self, messages: Sequence[Arrival], ends: float) -> bool:
        """Make a call, unless Redis is to rest, or a request waits for a slow one already."""
        with self._guard:
            if not self._rest_until <= time.monotonic() < ends or (self._is_slow and self._under_way):
                return False
            self._under_way += 1
        began = time.monotonic()
        try:
            self._lanes.enqueue_many(messages)
        except Exception as error:  # noqa: BLE001 - the messages are committed, and so is the answer to the provider
            self._postpone(messages, rest_s=REDIS_REST_S)
            event("enqueue_postponed", messages=len(messages), error=reason_of(error))
        finally:
            with self._guard:
                self._under_way -= 1
                self._is_slow = time.monotonic() - began > SLOW_S
        return True

    def _taken(self, most: int) -> list[Arrival]:
        """Take what others have left."""
        with self._guard:
            taken, self._postponed = self._postponed[:most], self._postponed[most:]
        return taken

    def _postpone(self, messages: Sequence[Arrival], rest_s: float = 0) -> None:
        """Remember what Redis has not got, within a bound; beyond it the reconciler finds it a little later."""
        with self._guard:
            self._postponed = [*self._postponed, *messages][:POSTPONED_MAX]
            self._rest_until = max(self._rest_until, time.monotonic() + rest_s)
