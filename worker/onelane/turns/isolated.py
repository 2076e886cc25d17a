"""Run one handler for one message in this process, which may die of it: the child's side of `isolation.py`.

It has no connection of its own: what the turn reads it asks its parent for, over the wire that it was given.
"""

import asyncio
import ctypes
import inspect
import os
import resource
import signal
import sys
from base64 import b64decode
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final
from uuid import UUID

from onelane import forks
from onelane.bot.memory import Memory
from onelane.errors import FileAway, FileError, FileGone, FileTooLarge, HandlerWaits
from onelane.history import Line
from onelane.model import Attachment, File, JsonObject, Message, TurnRead
from onelane.telemetry import log
from onelane.turns.blame import blamed
from onelane.turns.bots import Bot
from onelane.turns.hosting import turn_of
from onelane.turns.loading import load
from onelane.turns.loop import awaited
from onelane.wire import Wire

PR_SET_PDEATHSIG = 1
STALL_LIMIT_S = 60.0
"""For an end of the wire that was stopped in the middle of a message. The parent bounds the whole turn."""
TURN_MAX_BYTES = 256 * 2**20
"""What the parent may send at once: a turn, or as much history as the handler asks for."""
RESULT_MAX_BYTES = 32 * 2**20
"""What a child may send at once: its effects, or the files of its replies in base64."""
FILES_MAX = 1_024
FILE_ERRORS: Final = {kind.__name__: kind for kind in (FileError, FileGone, FileTooLarge, FileAway)}


class Parent(Memory):
    """The turn's memory, asked over the wire: the parent knows which session."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._fetches = ThreadPoolExecutor(1, thread_name_prefix="files")
        self._asking = Lock()
        """Guards a question with its answer: a handler may read in several threads or tasks at once."""

    def history(self, session_id: UUID, limit: int) -> list[Line]:
        """Ask for the last `limit` lines of the session."""
        del session_id
        return [Line.model_validate(line) for line in self._ask({"ask": "history", "limit": limit})]

    def tool_output(self, session_id: UUID, name: str) -> Any:
        """Ask for the session's newest output of that name."""
        del session_id
        return self._ask({"ask": "tool_output", "name": name})

    def newer(self) -> list[Message]:
        """Ask for what has arrived since."""
        return [Message.model_validate(message) for message in self._ask({"ask": "newer"})]

    def known_step(self, key: str) -> tuple[bool, Any]:
        """Ask whether a step has a result."""
        is_known, value = self._ask({"ask": "step", "key": key})
        return is_known, value

    def keep_step(self, key: str, value: Any) -> Any:
        """Let a step's result be kept."""
        return self._ask({"ask": "keep", "key": key, "value": value})

    def shield(self) -> None:
        """Say that the turn is to be committed."""
        self._ask({"ask": "shield"})

    def fetching(self, attachment: Attachment) -> Future[File]:
        """Ask for a file, in a thread: an async handler goes on meanwhile."""
        return self._fetches.submit(self._fetch, attachment)

    def _fetch(self, attachment: Attachment) -> File:
        file = self._ask({"ask": "fetch", "attachment": attachment.model_dump(mode="json")})
        return File(content=b64decode(file["content"]), content_type=file["content_type"])

    def _ask(self, question: JsonObject) -> Any:
        with self._asking:
            self._wire.send(question)
            answer = self._wire.receive(None)
        if "refused" in answer:
            raise FILE_ERRORS[answer["refused"]](answer["why"])
        return answer["answer"]


def main() -> None:
    """Take a turn from the parent, run it, and send its effects or where it failed."""
    path, wire_fd, parent_pid = sys.argv[1], *map(int, sys.argv[2:])
    _die_with(parent_pid)
    # A platform's signals go to every process; this one is ended by its parent, or its message would be convicted.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: None)
    forks.guard()
    log.configure_by_environment()
    _bound()
    wire = Wire.inherited(wire_fd, STALL_LIMIT_S, receives_max_bytes=TURN_MAX_BYTES, sends_max_bytes=RESULT_MAX_BYTES)
    bot = load(path)  # before the message is here: that this fails or takes long is not its fault
    with suppress(OSError):  # a parent that has given the turn up listens no more
        wire.send({"ready": True})
        try:
            with forks.children_end_here():
                effects = _run(bot, wire)
            wire.send({"effects": effects})
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything
            wire.send(_told(blamed(error)))


def _run(bot: Bot, wire: Wire) -> JsonObject:
    read = TurnRead.model_validate(wire.receive(None))
    if (act := bot.act_for(read)) is None:  # the module has changed since its worker began
        return {}
    turn = turn_of(act, read, Parent(wire), Event())
    replies: Any = act(turn)
    return turn.effects(asyncio.run(awaited(replies)) if inspect.isawaitable(replies) else replies)


def _told(error: Exception) -> JsonObject:
    """Make of a failure what the parent raises again."""
    if isinstance(error, HandlerWaits):
        return {"waits": str(error), "seconds": error.seconds, "reason": error.reason}
    return {"failed": str(error)}


def _die_with(parent_pid: int) -> None:
    """End when the parent does, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit(0)


def _bound() -> None:
    """Bound what the parent cannot watch, and let the system end this process first when memory runs out."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    with suppress(OSError):  # Linux alone has it
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")


if __name__ == "__main__":
    main()
