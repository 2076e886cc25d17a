"""Run a suspect message's handler in a child of its own, so that nothing else dies of it.

The parent begins, renews and commits as always. A child that dies, and only that, convicts its message.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from threading import BoundedSemaphore
from typing import Any

from onelane.bot import Memory
from onelane.errors import HandlerFailed
from onelane.lanes.holding import Holding
from onelane.model import BEGUN, Begun, JsonObject
from onelane.wire import Wire

CHILDREN_MAX = 2
POLL_S = 0.1
STALL_LIMIT_S = 10.0
"""A child that was stopped in the middle of a message; importing a handler may take a while, too."""
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

    def run(self, begun: Begun, holding: Holding, memory: Memory) -> JsonObject:
        """Run the handler in a child and return the turn's effects; raise HandlerFailed if it fails or dies."""
        ours, theirs = Pipe()
        with ours, theirs:
            child = subprocess.Popen(self._command(theirs.fileno()), pass_fds=[theirs.fileno()])
            theirs.close()
            wire = Wire(ours, STALL_LIMIT_S)
            try:
                wire.send(BEGUN.dump_python(begun, mode="json"))
                return self._converse(wire, begun, holding, memory)
            except (OSError, EOFError):
                raise HandlerFailed(_death_of(child)) from None
            finally:
                child.kill()
                child.wait()

    def _converse(self, wire: Wire, begun: Begun, holding: Holding, memory: Memory) -> JsonObject:
        """Answer what the child asks, until it has sent how its turn ended."""
        ends = time.monotonic() + self._turn_timeout_s
        while True:
            match _next(wire, ends, holding):
                case {"effects": dict(effects)}:
                    return effects
                case {"failed": str(failure)}:
                    raise HandlerFailed(failure)
                case {"ask": "history", "limit": int(limit)}:
                    lines = memory.history(begun.session_id, limit)
                    wire.send({"answer": [line.model_dump(mode="json") for line in lines]})
                case {"ask": "tool_output", "name": str(name)}:
                    wire.send({"answer": memory.tool_output(begun.session_id, name)})
                case _:
                    raise HandlerFailed("the handler's process sent something that is not of our protocol")

    def _command(self, wire_fd: int) -> list[str]:
        arguments = [self._handler_path, str(wire_fd), str(self._memory_mb), str(os.getpid())]
        return [sys.executable, "-P", "-m", "onelane.turns.isolated", *arguments]


def _next(wire: Wire, ends: float, holding: Holding) -> Any:
    """Wait for the child's next message, until the turn's time is over or its lease is lost."""
    while True:
        if holding.cancelled.is_set():
            raise HandlerFailed("the turn was cancelled")
        if time.monotonic() > ends:
            raise HandlerFailed("the handler did not finish in time")
        message = wire.receive(POLL_S)
        if message is not None:
            return message


def _death_of(child: subprocess.Popen[bytes]) -> str:
    try:
        code = child.wait(DEATH_S)
    except subprocess.TimeoutExpired:
        return "the handler's process closed its connection or stalled, and was ended"
    how = f"of signal {-code}" if code < 0 else f"with exit code {code}"
    return f"the handler's process died {how}"
