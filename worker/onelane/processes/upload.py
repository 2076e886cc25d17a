"""Adds what this process counted to the sums of all processes, which one hash in Redis holds.

A batch whose reply was lost is sent again as it was, with its number, and the script adds a number once: nothing is
counted twice, unless Redis was away for longer than it remembers the number (then at most that one batch). With Redis
away, what gathers is bounded by the number of fields. Lost are the last second of a process that is killed, and all
sums when Redis loses its memory: they begin at 0 again, which Prometheus takes for what it is.
"""

import threading
from collections.abc import Callable
from typing import Final
from uuid import uuid4

import redis

from onelane.errors import LanesUnavailable
from onelane.periodic import Periodic
from onelane.telemetry.counters import Batch, Counters, counters
from onelane.telemetry.log import event

UPLOAD_S: Final = 1.0


class Upload:
    """Sends what `counters` gather, batch by batch."""

    def __init__(
        self,
        send: Callable[[str, int, Batch], object],
        *,
        source: Counters = counters,
        every_s: float = UPLOAD_S,
    ) -> None:
        """`send(process, number, batch)` adds a batch once, however often it is called; it raises LanesUnavailable."""
        self._send = send
        self._source = source
        self._process = uuid4().hex
        self._batch: Batch = {}
        """What was sent and not confirmed."""
        self._number = 0
        self._flushing = threading.Lock()
        self._is_postponed = False
        self._rounds = Periodic("numbers", self.flush, every_s)

    def start(self) -> None:
        """Send every second from now on."""
        self._rounds.start()

    def close(self) -> None:
        """Send the rest, and end."""
        self._rounds.stop()
        self.flush()

    def flush(self) -> bool:
        """Send what there is now; return False when Redis did not take it: then it is kept.

        What is counted meanwhile has its time the next time: else a server that is far away is sent to without end.
        """
        with self._flushing:
            try:
                is_late = bool(self._batch)
                for _ in range(1 + is_late):
                    if self._has_batch():
                        self._send(self._process, self._number, self._batch)
                        self._batch = {}
            except (LanesUnavailable, redis.exceptions.RedisError) as error:
                self._note_postponed(error)
                return False
            self._is_postponed = False
            return True

    def _has_batch(self) -> bool:
        """Take what has gathered, unless a batch is still unconfirmed: that goes first, and unchanged."""
        if not self._batch:
            self._batch = self._source.take()
            self._number += 1
        return bool(self._batch)

    def _note_postponed(self, error: Exception) -> None:
        """Log it once an outage, not every second."""
        if not self._is_postponed:
            event("numbers_postponed", error=type(error).__name__)
        self._is_postponed = True
