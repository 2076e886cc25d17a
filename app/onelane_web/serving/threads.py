"""The threads that answer requests, and the requests that wait for one."""

import sys
import threading
import time
import traceback
from collections.abc import Callable
from queue import SimpleQueue

from onelane.errors import FRAMES_MAX
from onelane_web.serving.answer import Answer
from onelane_web.serving.connection import Connection


class Threads:
    """A few threads, each with one request at a time, the oldest first.

    A request is answered once: by its thread, or by the loop, which takes back what waits or hangs for too long. What
    a thread answers then is dropped.
    """

    def __init__(
        self,
        name: str,
        number: int,
        answer: Callable[[Connection], Answer],
        on_answered: Callable[[Connection], object],
    ) -> None:
        self._answer = answer
        self._on_answered = on_answered
        self._taking = threading.Lock()
        """Guards the two below: who has a request."""
        self._queued: dict[Connection, float] = {}
        """Since when each has waited for a thread."""
        self._held: dict[Connection, float] = {}
        """Since when a thread has answered each."""
        self._bell: SimpleQueue[None] = SimpleQueue()
        """Rings once for each request that is queued."""
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{nr}", daemon=True) for nr in range(number)]
        for thread in self._threads:
            thread.start()

    def put(self, connection: Connection) -> None:
        """Queue a connection whose request is whole."""
        with self._taking:
            self._queued[connection] = time.monotonic()
        self._bell.put(None)

    def take_back_queued(self, waited_s: float, held_max_bytes: int) -> list[Connection]:
        """Return whom no thread has taken in time, and the oldest of more bytes than may be held; none is taken now."""
        now = time.monotonic()
        with self._taking:
            held = sum(len(connection.arrival) for connection in self._queued)
            overdue = []
            for connection, since in self._queued.items():
                if now - since > waited_s or held > held_max_bytes:
                    held -= len(connection.arrival)
                    overdue.append(connection)
            for connection in overdue:
                del self._queued[connection]
        return overdue

    def take_back_held(self, held_s: float) -> list[Connection]:
        """Return whom a thread has answered for longer than `held_s`; whatever it answers now is dropped."""
        now = time.monotonic()
        with self._taking:
            overdue = [connection for connection, since in self._held.items() if now - since > held_s]
            for connection in overdue:
                del self._held[connection]
        return overdue

    def hang(self, held_s: float) -> bool:
        """Whether one of the threads has had its request for longer than `held_s`, or has died."""
        now = time.monotonic()
        with self._taking:
            return any(now - since > held_s for since in self._held.values()) or not all(
                thread.is_alive() for thread in self._threads
            )

    def stacks(self) -> dict[str, list[str]]:
        """Describe where each thread is: the names of files and functions, no values."""
        frames = sys._current_frames()  # noqa: SLF001 - Python's own way to look at other threads
        return {
            thread.name: traceback.StackSummary.from_list(
                traceback.extract_stack(frames[thread.ident])[-FRAMES_MAX:]
            ).format()
            for thread in self._threads
            if thread.ident in frames
        }

    def _work(self) -> None:
        """Answer one request after the other; a thread's whole life."""
        while True:
            self._bell.get()
            if connection := self._taken():
                answer = self._answer(connection)
                with self._taking:
                    is_ours = self._held.pop(connection, None) is not None
                if is_ours:
                    connection.give(answer)
                    self._on_answered(connection)

    def _taken(self) -> Connection | None:
        """Take the oldest request; None if it was taken back."""
        with self._taking:
            connection = next(iter(self._queued), None)
            if connection:
                del self._queued[connection]
                self._held[connection] = time.monotonic()
        return connection
