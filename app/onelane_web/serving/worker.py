"""Gunicorn's worker: one loop waits for all clients, and a few threads answer whole requests.

The loop watches everything else of its process. Gunicorn watches the loop, by its heartbeat; where that is no help, as
the process starts and ends, the last resort does.
"""

import errno
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterable
from functools import partial
from math import inf
from typing import Any, Final

from gunicorn.workers.base import Worker
from gunicorn.workers.gthread import PollableMethodQueue

from onelane.config import Settings
from onelane.periodic import hopeless_task, revive_stuck
from onelane.telemetry.log import event
from onelane.telemetry.numbers import BUSY, REFUSALS
from onelane_web import health, webhook
from onelane_web.serving.answer import Answer, unavailable
from onelane_web.serving.arrival import Arrival
from onelane_web.serving.connection import Connection, Stage
from onelane_web.serving.descriptors import allow_files
from onelane_web.serving.last_resort import end_within, name_threads_on_abort
from onelane_web.serving.threads import Threads

REQUEST_S: Final = 10.0
"""From the first byte of a request to its last."""
QUEUE_S: Final = 2.0
"""Until a thread takes a whole request."""
ANSWER_S: Final = 30.0
LEAVE_S: Final = 2.0
"""For a client to close, and while we stop for an idle one to send what it may be sending already."""
HELD_MAX_BYTES: Final = 64 * 2**20
"""Of requests that are not whole yet, all clients together; as much again of those that wait for a thread."""
SPARE_FILES: Final = 100
"""Descriptors that are no clients."""
ROUND_S: Final = 1.0
BOOT_S: Final = 60.0
"""For the application to be loaded, also while its servers do not answer."""
ENDS_S: Final = 2.0
"""For what is left to be refused, and all to be closed, before gunicorn kills the process."""

EVENTS: Final = {
    Stage.IDLE: selectors.EVENT_READ,
    Stage.ARRIVING: selectors.EVENT_READ,
    Stage.ANSWERING: 0,
    Stage.SENDING: selectors.EVENT_WRITE,
    Stage.LEAVING: selectors.EVENT_READ,
    Stage.GONE: 0,
}


class LoopWorker(Worker):  # type: ignore[misc]  # gunicorn ships no types
    """Moves connections from stage to stage.

    When there are too many connections, the one that has been in its stage for longest makes room: a request that
    arrives at once is never that one.
    """

    def init_process(self) -> None:
        """Load the application and serve it. Gunicorn misses no heartbeat of a process that has not had one yet."""
        end_within(BOOT_S)
        super().init_process()

    def init_signals(self) -> None:
        """Show where the threads are when gunicorn ends a process whose heart has stopped."""
        super().init_signals()
        name_threads_on_abort()

    def run(self) -> None:
        """Serve until asked to stop, then answer those who have asked: within `graceful_timeout`."""
        self._poller = selectors.DefaultSelector()
        self._waiting: dict[Connection, None] = {}
        """Whoever waits for a client, in the order in which their stages began."""
        self._answering: set[Connection] = set()
        self._answered = PollableMethodQueue()
        self._answered.init()
        self._poller.register(self._answered, selectors.EVENT_READ, self._take_answered)
        self._body_max_bytes = Settings.from_environment().body_max_bytes
        self._connections_max = allow_files(self.cfg.worker_connections + SPARE_FILES) - SPARE_FILES
        self._looked = 0.0
        self._exit_code = 0
        """1 once this process was found unable to work."""
        self._requests = Threads("request", self.cfg.threads, self._answer, self._take_later)
        self._readiness = Threads("readiness", 1, self._answer, self._take_later)
        self._all_threads = (self._requests, self._readiness)
        end_within(None)
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
        leaves_s = LEAVE_S if self._exit_code else max(0.0, self.cfg.graceful_timeout - ENDS_S)
        end_within(leaves_s + ENDS_S)
        ends = time.monotonic() + leaves_s
        for listener in self.sockets:
            for _ in range(self.cfg.backlog):
                if not self._accept(listener):
                    break
            self._poller.unregister(listener)
            listener.close()
        while (self._waiting or self._answering) and time.monotonic() < ends:
            self._round()
        self._refuse(self._taken_back(0, 0, 0), "this process ends")

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
                self._answering.add(connection)
                self._hand_over(connection)
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

    def _hand_over(self, connection: Connection) -> None:
        """Queue a whole request for a thread. Whether we live is answered here, beside all requests."""
        match connection.arrival.path:
            case health.ALIVE:
                unfit = unavailable("this process cannot work and ends") if self._exit_code else None
                connection.give(unfit or self._answer(connection))
                self._take_later(connection)
            case health.READY:
                self._readiness.put(connection)
            case _:
                self._requests.put(connection)

    def _answer(self, connection: Connection) -> Answer:
        return connection.answer(self, is_last=not self.alive)

    def _take_later(self, connection: Connection) -> None:
        self._answered.defer(self._after_answer, connection)

    def _take_answered(self) -> None:
        self._answered.run_callbacks(None)

    def _after_answer(self, connection: Connection) -> None:
        self._move(connection, connection.send())

    def _look_at_all(self) -> None:
        """Give up what has taken too long. A process that cannot do its work any more ends."""
        self._looked = now = time.monotonic()
        self._give_up_slow_clients(now)
        if late := self._taken_back(QUEUE_S, HELD_MAX_BYTES, inf):
            REFUSALS.count(BUSY, sum(connection.arrival.path.startswith(webhook.PREFIX) for connection in late))
            self._refuse(late, "every thread is busy")
            event("web_busy", requests=len(late))
        revive_stuck()
        if self.alive and (task := hopeless_task()):
            self._replace()
            event("web_hopeless", task=task)
        elif self.alive and any(threads.hang(self.cfg.timeout) for threads in self._all_threads):
            stacks = {name: stack for threads in self._all_threads for name, stack in threads.stacks().items()}
            self._replace()
            event("web_stuck", stacks=stacks)

    def _give_up_slow_clients(self, now: float) -> None:
        """End what has waited too long for its client, and hold no more than is allowed."""
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

    def _taken_back(self, queued_s: float, queued_max_bytes: int, held_s: float) -> list[Connection]:
        """Take requests back that wait for a thread, or that one has had, for so long."""
        return [
            connection
            for threads in self._all_threads
            for connection in (*threads.take_back_queued(queued_s, queued_max_bytes), *threads.take_back_held(held_s))
        ]

    def _refuse(self, connections: Iterable[Connection], why: str) -> None:
        for connection in connections:
            connection.give(unavailable(why))
            self._after_answer(connection)

    def _replace(self) -> None:
        """End this process; gunicorn starts the next. Done before it is logged, which may hang as well."""
        self.alive, self._exit_code = False, 1
        self._refuse(self._taken_back(inf, HELD_MAX_BYTES, self.cfg.timeout), "the request has taken too long")
