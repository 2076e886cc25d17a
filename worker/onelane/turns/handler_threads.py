"""The threads of a process in which sync handlers run, or wait for a suspect's child.

Each lease that needs one has a place, and there are as many threads as places: no call waits for a thread. One that
hangs keeps its place, and one in which a call has failed ends: what a handler has left in it fails no later turn.
"""

from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, TypeVar

from onelane.errors import NoThread
from onelane.turns.answers import answered

IDLE_S: Final = 30.0
"""For so long a thread waits beyond the last lease that needed it."""

Answer = TypeVar("Answer")
Call = tuple[Callable[[], Any], Future[Any]]


class HandlerThreads:
    """Threads that make calls, each the next that there is: many short calls of one moment need few of them."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call] = SimpleQueue()
        self._changing = Lock()
        """Guards the two numbers: leases take places on the shifts' loop and in the dispatcher."""
        self._places = 0
        self._threads = 0

    def take_place(self) -> None:
        """Have a thread ready for one more lease; raise NoThread if the system starts none."""
        with self._changing:
            if self._threads == self._places:
                self._start()
            self._places += 1

    def leave(self) -> None:
        """Give a place back."""
        with self._changing:
            self._places -= 1

    def make(self, call: Callable[[], Answer]) -> Future[Answer]:
        """Make `call` for a lease that has a place and no other call under way."""
        future: Future[Answer] = Future()
        self._calls.put((call, future))
        return future

    def _start(self) -> None:
        try:
            Thread(target=self._work, name="handler", daemon=True).start()
        except RuntimeError as error:
            raise NoThread from error
        self._threads += 1

    def _work(self) -> None:
        while True:
            try:
                call, future = self._calls.get(timeout=IDLE_S)
            except Empty:
                if self._is_spare():
                    return
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - whoever asked gets it
                has_ended = self._is_replaced()
                future.set_exception(error)
                if has_ended:
                    return
            del call, future  # nothing is kept while it waits

    def _is_spare(self) -> bool:
        """End this thread's count if no place needs it."""
        with self._changing:
            is_spare = self._threads > self._places
            self._threads -= is_spare
        return is_spare

    def _is_replaced(self) -> bool:
        """Put another thread in this one's place; without another it goes on."""
        with self._changing:
            try:
                self._start()
            except NoThread:
                return False
            self._threads -= 1
        return True


class LeaseThread:
    """A lease's place among the threads, from when it is needed first to the lease's end."""

    def __init__(self, threads: HandlerThreads) -> None:
        self._threads = threads
        self._has_place = False
        self._made: Future[Any] | None = None
        """The last call."""

    def start(self) -> None:
        """Take a place, unless it has one; raise NoThread if the system starts no thread."""
        if not self._has_place:
            self._threads.take_place()
            self._has_place = True

    async def run(self, call: Callable[[], Answer]) -> Answer:
        """Make `call` in a thread, and return what it returns or raise what it raises."""
        self.start()
        self._made = made = self._threads.make(call)
        return await answered(made)

    def end(self) -> None:
        """Give the place back, once the call at hand has ended."""
        if not self._has_place:
            return
        if self._made is None:
            self._threads.leave()
        else:
            self._made.add_done_callback(lambda _: self._threads.leave())
