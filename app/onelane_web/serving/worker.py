"""Gunicorn's worker: one loop waits for all clients, and a few threads answer whole requests."""

import errno
import os
import resource
import selectors
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from gunicorn.workers.base import Worker
from gunicorn.workers.gthread import PollableMethodQueue

from onelane.config import Settings
from onelane.errors import FRAMES_MAX
from onelane.telemetry.log import event
from onelane_web.serving.arrival import Arrival
from onelane_web.serving.connection import Connection, Stage

REQUEST_S: Final = 10.0
"""From the first byte of a request to its last."""
ANSWER_S: Final = 30.0
LEAVE_S: Final = 2.0
"""For a client to close, and while we stop for an idle one to send what it may be sending already."""
HELD_MAX_BYTES: Final = 64 * 2**20
"""Of requests that are not whole yet, all clients together."""
SPARE_FILES: Final = 100
"""Descriptors that are no clients."""
ROUND_S: Final = 1.0

EVENTS: Final = {
    Stage.IDLE: selectors.EVENT_READ,
    Stage.ARRIVING: selectors.EVENT_READ,
    Stage.ANSWERING: 0,
    Stage.SENDING: selectors.EVENT_WRITE,
    Stage.LEAVING: selectors.EVENT_READ,
    Stage.GONE: 0,
}


class LoopWorker(Worker):  # type: ignore[misc]  # gunicorn ships no types
    """Moves connections from stage to stage. Only `_answer_all` runs in threads.

    When there are too many connections, the one that has been in its stage for longest makes room: a request that
    arrives at once is never that one.
    """

    def run(self) -> None:
        """Serve until asked to stop, then answer those who have asked: within `graceful_timeout`."""
        self._poller = selectors.DefaultSelector()
        self._waiting: dict[Connection, None] = {}
        """Whoever waits for a client, in the order in which their stages began."""
        self._answering: set[Connection] = set()
        self._whole: SimpleQueue[Connection] = SimpleQueue()
        self._answered = PollableMethodQueue()
        self._answered.init()
        self._poller.register(self._answered, selectors.EVENT_READ, self._take_answered)
        self._body_max_bytes = Settings.from_environment().body_max_bytes
        self._connections_max = _allow_files(self.cfg.worker_connections + SPARE_FILES) - SPARE_FILES
        self._looked = 0.0
        self._exit_code = 0
        for number in range(self.cfg.threads):
            threading.Thread(target=self._answer_all, name=f"request-{number}", daemon=True).start()
        self._serve()
        if self._exit_code:
            sys.exit(self._exit_code)

    def handle_exit(self, _signal: int, _frame: Any) -> None:
        """Begin to stop; safe as a signal handler, however often."""
        self.alive = False

    def _serve(self) -> None:
        for listener in self.sockets:
            listener.setblocking(False)
            self._poller.register(listener, selectors.EVENT_READ, partial(self._accept, listener))
        while self.alive and self.ppid == os.getppid():
            self._round()
        self.alive = False
        for listener in self.sockets:
            while self._accept(listener):
                pass
            self._poller.unregister(listener)
            listener.close()
        ends = time.monotonic() + (LEAVE_S if self._exit_code else self.cfg.graceful_timeout)
        while (self._waiting or self._answering) and time.monotonic() < ends:
            self._round()

    def _round(self) -> None:
        self.notify()
        for key, _events in self._poller.select(ROUND_S):
            key.data()
        if time.monotonic() > self._looked + ROUND_S:
            self._look_at_all()

    def _accept(self, listener: socket.socket) -> bool:
        """Take one new connection, and return whether there was one."""
        try:
            wire, client = listener.accept()
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                self._make_room()
            return False
        if len(self._waiting) + len(self._answering) >= self._connections_max:
            self._make_room()
        arrival = Arrival(self.cfg, client, self._body_max_bytes)
        self._move(Connection(wire, listener.getsockname(), arrival, client), Stage.IDLE)
        return True

    def _make_room(self) -> None:
        longest = next(iter(self._waiting), None)
        if longest:
            self._move(longest, Stage.GONE)

    def _move(self, connection: Connection, stage: Stage) -> None:
        """Let a connection wait for what the stage says, and no longer for anything else."""
        if stage is connection.stage is not Stage.ANSWERING:
            return
        self._waiting.pop(connection, None)
        self._answering.discard(connection)
        self._watch(connection, EVENTS[connection.stage], EVENTS[stage])
        connection.stage, connection.since = stage, time.monotonic()
        match stage:
            case Stage.GONE:
                connection.wire.close()
            case Stage.ANSWERING:
                connection.since = float("inf")
                self._answering.add(connection)
                self._whole.put(connection)
            case _:
                self._waiting[connection] = None

    def _watch(self, connection: Connection, before: int, now: int) -> None:
        if before and now:
            self._poller.modify(connection.wire, now, partial(self._on_event, connection))
        elif now:
            self._poller.register(connection.wire, now, partial(self._on_event, connection))
        elif before:
            self._poller.unregister(connection.wire)

    def _on_event(self, connection: Connection) -> None:
        if connection in self._waiting:  # else it made room in this very round
            self._move(connection, connection.send() if connection.stage is Stage.SENDING else connection.read())

    def _answer_all(self) -> None:
        """Answer one request after the other; a thread's whole life."""
        while True:
            connection = self._whole.get()
            connection.since = time.monotonic()
            connection.answer(self, is_last=not self.alive)
            self._answered.defer(self._after_answer, connection)

    def _take_answered(self) -> None:
        self._answered.run_callbacks(None)

    def _after_answer(self, connection: Connection) -> None:
        self._move(connection, connection.send())

    def _look_at_all(self) -> None:
        """End what has taken too long, hold no more than is allowed, and notice a thread that does not come back."""
        self._looked = now = time.monotonic()
        lives_s = {
            Stage.IDLE: self.cfg.keepalive if self.alive else LEAVE_S,
            Stage.ARRIVING: REQUEST_S,
            Stage.SENDING: ANSWER_S if self.alive else REQUEST_S,
            Stage.LEAVING: LEAVE_S,
        }
        held = sum(len(connection.arrival) for connection in self._waiting)
        for connection in list(self._waiting):
            is_held = connection.stage is Stage.ARRIVING and held > HELD_MAX_BYTES
            if is_held or now - connection.since > lives_s[connection.stage]:
                held -= len(connection.arrival)
                self._move(connection, connection.give_up())
        if self.alive and any(now - connection.since > self.cfg.timeout for connection in self._answering):
            self._replace()

    def _replace(self) -> None:
        """End this process, since a thread of it hangs; gunicorn starts the next."""
        frames = sys._current_frames()  # noqa: SLF001 - Python's own way to look at other threads
        stacks = {
            thread.name: traceback.StackSummary.from_list(
                traceback.extract_stack(frames[thread.ident])[-FRAMES_MAX:]
            ).format()
            for thread in threading.enumerate()
            if thread.ident in frames and thread.name.startswith("request-")
        }
        event("web_stuck", stacks=stacks)
        self.alive, self._exit_code = False, 1


def _allow_files(wanted: int) -> int:
    """Raise the limit on open descriptors as far as it may be raised, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return min(wanted, max(soft, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
