"""Run a suspect message's handler in a child of its own, so that nothing else dies of it.

The parent begins, renews and commits as always. A child that dies, and only that, convicts its message.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

from worker.failure import HandlerFailed
from worker.handlers import Memory
from worker.lock import Holding
from worker.model import Begun, JsonObject

CHILDREN_MAX = 2
POLL_S = 0.1
LINE_MAX_BYTES = 4_000_000


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
        ours, theirs = socket.socketpair()
        with ours, theirs:
            child = subprocess.Popen(self._command(theirs.fileno()), pass_fds=[theirs.fileno()])
            theirs.close()
            try:
                wire = _Wire(ours, time.monotonic() + self._turn_timeout_s, holding)
                wire.tell(_given(begun, holding))
                return self._listen(wire, begun, memory)
            except (ConnectionError, EOFError):
                raise HandlerFailed(_death(child.wait())) from None
            finally:
                child.kill()
                child.wait()

    def _listen(self, wire: "_Wire", begun: Begun, memory: Memory) -> JsonObject:
        while True:
            heard = wire.hear()
            match heard:
                case {"effects": dict(effects)}:
                    return effects
                case {"failed": str(failure)}:
                    raise HandlerFailed(failure)
                case {"ask": "history", "limit": int(limit)}:
                    lines = memory.history(begun.session_id, limit)
                    wire.tell({"answer": [line.model_dump(mode="json") for line in lines]})
                case {"ask": "tool_output", "name": str(name)}:
                    wire.tell({"answer": memory.tool_output(begun.session_id, name)})
                case _:
                    raise HandlerFailed("the handler's process said something else than agreed")

    def _command(self, wire_fd: int) -> list[str]:
        arguments = [self._handler_path, str(wire_fd), str(self._memory_mb), str(os.getpid())]
        return [sys.executable, "-m", "worker.handlers.isolated", *arguments]


class _Wire:
    """One JSON object a line, with a deadline, and an ear for cancellation."""

    def __init__(self, wire: socket.socket, ends: float, holding: Holding) -> None:
        wire.settimeout(POLL_S)
        self._wire = wire
        self._ends = ends
        self._holding = holding
        self._heard = b""

    def tell(self, said: JsonObject) -> None:
        self._wire.sendall(json.dumps(said).encode() + b"\n")

    def hear(self) -> Any:
        while b"\n" not in self._heard:
            self._heard += self._receive()
            if len(self._heard) > LINE_MAX_BYTES:
                raise HandlerFailed(f"the handler's process said more than {LINE_MAX_BYTES} bytes at once")
        line, _, self._heard = self._heard.partition(b"\n")
        return json.loads(line)

    def _receive(self) -> bytes:
        while True:
            if self._holding.cancelled.is_set():
                raise HandlerFailed("the turn was cancelled")
            if time.monotonic() > self._ends:
                raise HandlerFailed("the handler did not finish in time")
            try:
                received = self._wire.recv(65_536)
            except TimeoutError:
                continue
            if not received:
                raise EOFError
            return received


def _given(begun: Begun, holding: Holding) -> JsonObject:
    """Word what a child needs to make the turn."""
    return {
        "message": begun.message.model_dump(mode="json"),
        "user_id": str(holding.lease.user_id),
        "channel": begun.channel,
        "sender": begun.sender,
        "user_state": begun.user_state,
        "session_id": str(begun.session_id),
        "started_at": begun.session_started_at.isoformat(),
        "session_state": begun.session_state,
    }


def _death(code: int) -> str:
    how = f"of signal {-code}" if code < 0 else f"with exit code {code}"
    return f"the handler's process died {how}"
