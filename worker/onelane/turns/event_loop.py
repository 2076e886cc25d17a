"""An event loop in a thread of its own, and whether it goes on.

The watch asks for a sign of life at every beat. Beats are counted, and not seconds: a process that was stopped has
missed both the answer and the beats. Turns are measured by a clock that stands still while a loop does not answer.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from onelane.forks import end_in_children, making_a_connection
from onelane.turns.clock import WorkingClock

Answer = TypeVar("Answer")


class EventLoop:
    """One event loop. What runs on it may not block: everybody's coroutines would stand still."""

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is the clock without which the loop cannot work either."""
        self._now = now
        with making_a_connection():
            self._loop = asyncio.new_event_loop()
            end_in_children(self._loop)
        self.missed = 0
        """How many beats in a row have found a sign of life outstanding. Written by the watch alone."""
        self._asked_at: float | None = None
        """When the sign of life was asked for that has not come yet. Set by the watch, taken back by the loop."""
        self._late_s = 0.0
        """For how long the loop has let such questions wait, in all."""
        self._tasks: set[asyncio.Task[None]] = set()
        """A loop itself keeps no task alive. Changed on the loop alone."""
        self._thread = threading.Thread(target=self._go_on, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Answer]) -> Future[Answer]:
        """Run a coroutine, in a copy of the caller's context."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run_all(self, coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Run coroutines for whose ends nobody waits. They begin together: what all ask first is asked at once."""
        self._loop.call_soon_threadsafe(self._begin, list(coroutines))

    def call(self, act: Callable[[], object]) -> None:
        """Call `act` on the loop, soon."""
        self._loop.call_soon_threadsafe(act)

    def clock(self) -> float:
        """Return the time in seconds, on a monotonic clock that stands still while the loop does not answer."""
        asked_at = self._asked_at
        return (self._now() if asked_at is None else asked_at) - self._late_s

    def ask(self) -> bool:
        """Ask for a sign of life; if the last one has not come, count that and return False."""
        if self._asked_at is not None:
            self.missed += 1
            return False
        self.missed = 0
        self._asked_at = self._now()
        self._loop.call_soon_threadsafe(self._answer)
        return True

    def _answer(self) -> None:
        if self._asked_at is not None:
            self._late_s += self._now() - self._asked_at
            self._asked_at = None

    def _begin(self, coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
        for coroutine in coroutines:
            task = self._loop.create_task(coroutine)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _go_on(self) -> None:
        """Run for ever: also when a handler stops the loop, or leaves a task of its own by SystemExit."""
        while True:
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()


class WorkLoop(EventLoop):
    """The loop on which all shifts of a process run. Its clock stands still as well while the process gets no CPU."""

    def __init__(self) -> None:
        self._working = WorkingClock()
        super().__init__("shifts", self._working.now)

    def ask(self) -> bool:
        """Note that the process works, and ask for a sign of life."""
        self._working.tick()
        return super().ask()


async def all_of(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all together, until each is over, however it ends."""
    await asyncio.gather(*coroutines, return_exceptions=True)
