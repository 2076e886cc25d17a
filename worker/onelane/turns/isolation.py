"""Run a suspect message's handler in a child of its own, so that nothing else dies of it.

The parent begins, renews and commits as always. A child that dies, and only that, convicts its message. Whatever the
child does with its end of the wire, the parent shuts the wire down when the turn's time is over.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing import Pipe
from threading import BoundedSemaphore
from typing import Self

import psycopg

from onelane.bot import Memory
from onelane.errors import HandlerFailed, describe
from onelane.lanes.holding import Holding
from onelane.model import JsonObject, TurnRead
from onelane.wire import Wire

CHILDREN_MAX = 2
STALL_LIMIT_S = 10.0
"""For a child that was stopped in the middle of a message, or needs long to begin to read."""
DEATH_S = 1.0
"""How long a child may live on that has closed its wire."""


class Isolation:
    """At most CHILDREN_MAX children at a time."""

    def __init__(self, handler_path: str, *, memory_mb: int, turn_timeout_s: float) -> None:
        self._handler_path = handler_path
        self._memory_mb = memory_mb
        self._turn_timeout_s = turn_timeout_s
        self._places = BoundedSemaphore(CHILDREN_MAX)

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Take a place for one child; yields False when all are taken."""
        has_place = self._places.acquire(blocking=False)
        try:
            yield has_place
        finally:
            if has_place:
                self._places.release()

    def run(self, read: TurnRead, holding: Holding, memory: Memory) -> JsonObject:
        """Run the handler in a child and return the turn's effects; raise HandlerFailed if it fails or dies."""
        ours, theirs = Pipe()
        with theirs, closing(Wire(ours, STALL_LIMIT_S)) as wire:
            child = self._start(theirs.fileno())
            theirs.close()
            try:
                with _Limit(wire, holding, self._turn_timeout_s) as limit:
                    return _converse(wire, read, memory)
            except (EOFError, OSError):
                raise HandlerFailed(limit.reason or _death_of(child)) from None
            except (ValueError, psycopg.DataError) as error:  # too long to send; or a name that Postgres cannot have
                raise HandlerFailed(describe(error)) from None
            finally:
                _end(child)

    def _start(self, wire_fd: int) -> subprocess.Popen[bytes]:
        """Start the child, in a process group of its own: what it starts itself ends with it."""
        arguments = [self._handler_path, str(wire_fd), str(self._memory_mb), str(os.getpid())]
        command = [sys.executable, "-P", "-m", "onelane.turns.isolated", *arguments]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[wire_fd], process_group=0)


class _Limit:
    """Shuts the wire down when the turn's time is over or its lease is lost, whatever its two ends do just then."""

    def __init__(self, wire: Wire, holding: Holding, turn_timeout_s: float) -> None:
        self.reason = ""
        """Why the wire was shut down; empty if it was not."""
        self._wire = wire
        self._holding = holding
        self._timer = threading.Timer(turn_timeout_s, self._shut_down, ["the handler did not finish in time"])
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        self._holding.when_cancelled(lambda: self._shut_down("the turn was cancelled"))
        return self

    def __exit__(self, *_: object) -> None:
        self._holding.when_cancelled(None)
        self._timer.cancel()

    def _shut_down(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._wire.shut_down()


def _converse(wire: Wire, read: TurnRead, memory: Memory) -> JsonObject:
    """Send the child its turn, then answer what it asks, until it has sent how the turn ended."""
    wire.send(read.model_dump(mode="json"))
    while True:
        match wire.receive(None):
            case {"effects": dict(effects)}:
                return effects
            case {"failed": str(failure)}:
                raise HandlerFailed(failure)
            case {"ask": "history", "limit": int(limit)}:
                lines = memory.history(read.session.id, limit)
                wire.send({"answer": [line.model_dump(mode="json") for line in lines]})
            case {"ask": "tool_output", "name": str(name)}:
                wire.send({"answer": memory.tool_output(read.session.id, name)})
            case _:
                raise HandlerFailed("the handler's process sent something that is not of our protocol")


def _death_of(child: subprocess.Popen[bytes]) -> str:
    try:
        code = child.wait(DEATH_S)
    except subprocess.TimeoutExpired:
        return "the handler's process stalled, closed its connection or sent what cannot be read, and was ended"
    how = f"of signal {-code}" if code < 0 else f"with exit code {code}"
    return f"the handler's process died {how}"


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child, and what it started unless that has left its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.wait()
