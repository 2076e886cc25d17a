"""Run one handler for one message in this process, which may die of it: the child's side of `isolation.py`.

It has no connection of its own: what the turn wants to know it asks its parent, over the socket it was given.
"""

import asyncio
import ctypes
import inspect
import json
import os
import resource
import signal
import socket
import sys
from datetime import datetime
from threading import Event
from typing import Any
from uuid import UUID

from worker import telemetry
from worker.failure import describe
from worker.handlers import Session, Turn, User
from worker.handlers.loading import load
from worker.model import JsonObject, Message, Utterance

PR_SET_PDEATHSIG = 1


class Parent:
    """The other end of the socket: one JSON object a line, asked and answered in turn. A turn's `Memory`."""

    def __init__(self, wire: socket.socket) -> None:
        self._lines = wire.makefile("rw", encoding="utf-8")

    def hear(self) -> JsonObject:
        """Wait for the parent's next line."""
        heard: JsonObject = json.loads(self._lines.readline())
        return heard

    def tell(self, said: JsonObject) -> None:
        """Send a line."""
        self._lines.write(json.dumps(said) + "\n")
        self._lines.flush()

    def history(self, session_id: UUID, limit: int) -> list[Utterance]:
        """Ask for the last `limit` lines of the session; the parent knows which."""
        del session_id
        self.tell({"ask": "history", "limit": limit})
        return [Utterance.model_validate(line) for line in self.hear()["answer"]]

    def tool_output(self, session_id: UUID, name: str) -> Any:
        """Ask for the session's newest output of that name; the parent knows which session."""
        del session_id
        self.tell({"ask": "tool_output", "name": name})
        return self.hear()["answer"]


def main() -> None:
    """Take a turn from the parent, run it, and tell its effects or where it failed."""
    path, wire_fd, memory_mb, parent_pid = sys.argv[1], *map(int, sys.argv[2:])
    _die_with(parent_pid)
    telemetry.configure_by_environment()
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb * 2**20, memory_mb * 2**20))
    parent = Parent(socket.socket(fileno=wire_fd))
    try:
        parent.tell({"effects": _run(path, parent)})
    except BaseException as error:  # noqa: BLE001 - a handler may raise anything
        parent.tell({"failed": describe(error)})


def _run(path: str, parent: Parent) -> JsonObject:
    handler = load(path)
    given = parent.hear()
    turn = Turn(
        Message.model_validate(given["message"]),
        User(UUID(given["user_id"]), given["channel"], given["sender"], given["user_state"]),
        Session(UUID(given["session_id"]), datetime.fromisoformat(given["started_at"]), given["session_state"]),
        parent,
        Event(),
    )
    said: Any = handler(turn)
    return turn.effects(asyncio.run(_to_end(said)) if inspect.isawaitable(said) else said)


async def _to_end(said: Any) -> Any:
    return await said


def _die_with(parent_pid: int) -> None:
    """End when the parent does, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit(0)


if __name__ == "__main__":
    main()
