"""One lease's own thread, for what blocks: a sync handler, or the wait for a suspect's child.

It ends with its lease, and what a handler has left in it is gone then. One that hangs is no thread that others need.
"""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from onelane.errors import NoThread
from onelane.turns.answers import answered

Answer = TypeVar("Answer")
Call = tuple[Callable[[], Any], Future[Any]]


class LeaseThread:
    """Makes one call after the other, in a thread that starts when it is needed first."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._runs = False

    def start(self) -> None:
        """Start it, unless it runs; raise NoThread if the system starts none."""
        if not self._runs:
            try:
                Thread(target=_work, args=(self._calls,), name="lease", daemon=True).start()
            except RuntimeError as error:
                raise NoThread from error
            self._runs = True

    async def run(self, call: Callable[[], Answer]) -> Answer:
        """Make `call` in the thread, and return what it returns or raise what it raises."""
        self.start()
        future: Future[Answer] = Future()
        self._calls.put((call, future))
        return await answered(future)

    def end(self) -> None:
        """Let it end, once the call at hand has."""
        self._calls.put(None)


def _work(calls: "SimpleQueue[Call | None]") -> None:
    while asked := calls.get():
        call, future = asked
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whoever asked gets it
            future.set_exception(error)
        del asked, call, future  # nothing is kept while it waits
