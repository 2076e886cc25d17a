"""Run a suspect message's handler in a child of its own, so that nothing else dies of it.

The parent begins, renews and commits as always. A child's death, a failure or a broken bound convicts its message; a
child that never came as far as the message does not. Whatever the child does with its end of the wire, the parent shuts
the wire down when the turn's time is over, or when the child's processes hold too much memory.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing import Pipe
from threading import BoundedSemaphore
from typing import Self

import psycopg

from onelane import forks
from onelane.bot.memory import Memory
from onelane.config import Settings
from onelane.errors import (
    HandlerFailed,
    IsolationBroken,
    NoThread,
    OnelaneError,
    describe,
    kind_of,
)
from onelane.lanes.holding import Holding
from onelane.model import JsonObject, TurnRead
from onelane.telemetry.log import event
from onelane.turns.conversation import converse
from onelane.turns.held_memory import held_mb
from onelane.turns.isolated import RESULT_MAX_BYTES, STALL_LIMIT_S, TURN_MAX_BYTES
from onelane.wire import Wire

WORKS = "works"
CHILDREN_MAX = 2
STARTS_MAX_S = 60.0
"""How long a child may take to start and to import the handler. Nothing of it is the turn's time."""
WATCH_TICK_S = 0.2
DEATH_S = 1.0
"""How long a child may live on that has closed its wire, or was killed."""


class Isolation:
    """At most CHILDREN_MAX children at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._memory_mb = settings.suspect_memory_mb
        self._turn_timeout_s = settings.turn_timeout_s
        self._places = BoundedSemaphore(CHILDREN_MAX)
        self._states: dict[str, str] = dict.fromkeys(settings.handlers, "")
        """Of each handler: WORKS, or why its last child did not start; empty until one was tried. Any thread writes."""

    @property
    def state(self) -> str:
        """WORKS, or the handlers whose last child did not start and why; empty until each was tried."""
        states = self._states.copy()
        broken = [f"{path}: {state}" for path, state in states.items() if state not in {WORKS, ""}]
        return "; ".join(broken) or ("" if "" in states.values() else WORKS)

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Take a place for one child; yields False when all are taken."""
        has_place = self._places.acquire(blocking=False)
        try:
            yield has_place
        finally:
            if has_place:
                self._places.release()

    def probe(self) -> None:
        """Start a child of each handler and end it; log it when that is impossible, before a message needs one."""
        for path in self._settings.handlers:
            try:
                with self._child(path) as child:
                    self._await_ready(child, path)
            except IsolationBroken as error:
                event("isolation_broken", handler=path, failure=str(error))

    def run(self, read: TurnRead, holding: Holding, memory: Memory) -> JsonObject:
        """Run the handler in a child and return the turn's effects; raise HandlerFailed if it fails or dies."""
        path = self._settings.handler_of(read.user.channel)
        with self._child(path) as child:
            holding.when_cancelled(lambda: child.give_up(HandlerFailed("the turn was cancelled")))
            try:
                self._await_ready(child, path)
                with _Limits(child, memory, self._turn_timeout_s, self._memory_mb):
                    return child.run(read, memory)
            finally:
                holding.when_cancelled(None)

    @contextmanager
    def _child(self, path: str) -> Iterator["_Child"]:
        """Start a child for the block, and keep why that was impossible."""
        try:
            with _Child.started(path) as child:
                yield child
        except IsolationBroken as error:
            self._states[path] = str(error)
            raise

    def _await_ready(self, child: "_Child", path: str) -> None:
        child.await_ready()
        self._states[path] = WORKS


class _Child:
    """A process for one turn, in a group of its own: what it starts itself ends with it."""

    def __init__(self, process: subprocess.Popen[bytes], wire: Wire) -> None:
        self.group = process.pid
        self._process = process
        self._wire = wire
        self._why: OnelaneError | None = None
        """Why it was given up, if it was."""

    @classmethod
    @contextmanager
    def started(cls, handler_path: str) -> Iterator[Self]:
        """Start a child, and end it with the block; raise IsolationBroken if the system starts none."""
        try:
            with forks.making_a_connection():
                ours, theirs = Pipe()
                wire = Wire(ours, STALL_LIMIT_S, sends_max_bytes=TURN_MAX_BYTES, receives_max_bytes=RESULT_MAX_BYTES)
                with theirs:
                    process = _start(handler_path, theirs.fileno())
        except OSError as error:
            raise IsolationBroken(f"the system starts no process: {kind_of(error)}") from error
        with closing(wire):
            try:
                yield cls(process, wire)
            finally:
                _end(process)

    def await_ready(self) -> None:
        """Wait until it has imported the handler; raise IsolationBroken if it does not come so far."""
        try:
            is_ready = self._wire.receive(STARTS_MAX_S) == {"ready": True}
        except (EOFError, OSError):
            if self._why:
                raise self._why from None
            raise IsolationBroken(f"{self._death()} before it was ready") from None
        if not is_ready:
            raise IsolationBroken(f"the handler's process did not start within {STARTS_MAX_S:g} s")

    def run(self, read: TurnRead, memory: Memory) -> JsonObject:
        """Let it run a turn, and return the turn's effects."""
        try:
            return converse(self._wire, read, memory)
        except (EOFError, OSError):
            raise self._why or HandlerFailed(self._death()) from None
        except (ValueError, psycopg.DataError) as error:  # too long to send; or a name that Postgres cannot have
            raise HandlerFailed(describe(error)) from None

    def give_up(self, why: OnelaneError) -> None:
        """Shut its wire down, whatever its two ends do just then."""
        self._why = self._why or why
        self._wire.shut_down()

    def _death(self) -> str:
        try:
            code = self._process.wait(DEATH_S)
        except subprocess.TimeoutExpired:
            return "the handler's process stalled, closed its connection or sent what cannot be read, and was ended"
        how = f"of signal {-code}" if code < 0 else f"with exit code {code}"
        return f"the handler's process died {how}"


class _Limits:
    """Gives a child up when the turn's time is over, or when its processes hold too much memory."""

    def __init__(self, child: _Child, memory: Memory, turn_timeout_s: float, memory_mb: int) -> None:
        self._child = child
        self._memory = memory
        self._ends = time.monotonic() + turn_timeout_s
        self._memory_mb = memory_mb
        self._is_over = threading.Event()
        self._watch = threading.Thread(target=self._keep, name="limits", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._watch.start()
        except RuntimeError as error:
            raise NoThread from error
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._watch.join(DEATH_S)  # the system may keep it: what it reads is the memory of a process

    def _keep(self) -> None:
        while not self._is_over.wait(min(WATCH_TICK_S, max(0.0, self._left_s))):
            if self._left_s <= 0:
                self._child.give_up(self._memory.outage or HandlerFailed("the handler did not finish in time"))
                return
            if held_mb(self._child.group) > self._memory_mb:
                self._child.give_up(HandlerFailed(f"the handler held more than {self._memory_mb} MB of memory"))
                return

    @property
    def _left_s(self) -> float:
        return self._ends + self._memory.held_s - time.monotonic()


def _start(handler_path: str, wire_fd: int) -> subprocess.Popen[bytes]:
    arguments = [handler_path, str(wire_fd), str(os.getpid())]
    command = [sys.executable, "-P", "-m", "onelane.turns.isolated", *arguments]
    return subprocess.Popen(  # noqa: S603 - the operator's HANDLER, and two numbers: nothing of a message
        command, stdin=subprocess.DEVNULL, pass_fds=[wire_fd], process_group=0
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a child, and what it started unless that has left its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    with suppress(subprocess.TimeoutExpired):  # what the system cannot end is not waited for: it will not run again
        process.wait(DEATH_S)
