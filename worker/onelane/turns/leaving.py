"""What ends lanes beside the work, on the event loop: the watch begins some, the stop of the process all others."""

from collections.abc import Coroutine
from concurrent.futures import Future, wait
from threading import Lock
from typing import Any

from onelane.turns.event_loop import EventLoop


class Leaving:
    """All that is under way; nobody waits for a server before the process ends."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._under_way: list[Future[None]] = []
        self._changing = Lock()

    def begin(self, leave: Coroutine[Any, Any, None]) -> None:
        """Leave a lane, or several, on the loop."""
        with self._changing:
            self._under_way = [*(one for one in self._under_way if not one.done()), self._loop.run(leave)]

    def wait(self, within_s: float) -> None:
        """Wait until all that has begun is over."""
        with self._changing:
            under_way = list(self._under_way)
        wait(under_way, within_s)
