"""What a turn reads and keeps while its handler runs in memory."""

from collections.abc import Callable
from concurrent.futures import Future
from copy import deepcopy
from typing import Any
from uuid import UUID

from onelane.bot.memory import Memory
from onelane.errors import TurnOutdated
from onelane.history import Line
from onelane.model import Attachment, File, Message, TurnRead
from onelane.testing.bot.files import Files
from onelane.testing.bot.in_memory.inbox import Waiting
from onelane.testing.bot.in_memory.people import UserRecord
from onelane.testing.bot.in_memory.stored import stored


class TurnMemory(Memory):
    """One turn's session and steps."""

    def __init__(
        self,
        user: UserRecord,
        read: TurnRead,
        files: Files,
        claim: Callable[[int], list[Message]],
        is_overtaken: Callable[[], bool],
    ) -> None:
        """`claim` takes into the batch what may join it behind a number; newer messages may throw the turn away."""
        self._user = user
        self._read = read
        self._files = files
        self._claim = claim
        self.claimed: list[Message] = []
        self._is_overtaken = is_overtaken
        self._is_shielded = read.failure is not None
        self.is_interrupted = False

    def history(self, session_id: UUID, limit: int) -> list[Line]:
        """Return the last `limit` lines, oldest first."""
        lines = [line for one in self._user.sessions if one.id == session_id for line in one.lines]
        return deepcopy(lines[-limit:]) if limit > 0 else []

    def tool_output(self, session_id: UUID, name: str) -> Any:
        """Return the newest output saved under `name`, or None."""
        calls = [line.call for one in self._user.sessions if one.id == session_id for line in one.lines if line.call]
        return next((deepcopy(call.output) for call in reversed(calls) if call.name == name), None)

    def newer(self) -> list[Message]:
        """Take what has arrived since into the batch."""
        self._check()
        newer = self._claim((self.claimed or self._read.messages)[-1].seq)
        self.claimed += newer
        return newer

    def known_step(self, key: str) -> tuple[bool, Any]:
        """Return whether a step of this batch has a result, and which."""
        steps, name = self._lowest().steps, (self._read.message.seq, key)
        return name in steps, deepcopy(steps.get(name))

    def keep_step(self, key: str, value: Any) -> Any:
        """Keep a step's result, and return the one that stands: the first."""
        return deepcopy(self._lowest().steps.setdefault((self._read.message.seq, key), stored(value)))

    def shield(self) -> None:
        """Let nothing that arrives throw the turn away from now on; raise TurnOutdated if something has."""
        if self.is_interrupted:
            raise TurnOutdated("a newer message has thrown this turn away")
        self._is_shielded = True

    def interrupt(self, _seq: int = 0) -> None:
        """Throw the turn away if newer messages do, and it is not shielded."""
        self.is_interrupted = self.is_interrupted or (not self._is_shielded and self._is_overtaken())

    def fetching(self, attachment: Attachment) -> Future[File]:
        """Fetch a file that a test sent by its bytes."""
        return self._files.fetch(self._read.user.channel, attachment)

    def _lowest(self) -> Waiting:
        self._check()
        return self._user.inbox[0]

    def _check(self) -> None:
        if self._user.version != self._read.version:
            raise TurnOutdated("what this turn read has changed since it began")
