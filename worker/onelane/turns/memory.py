"""What a turn reads of its session and fetches while its handler runs, and whether Postgres keeps it from reading."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from uuid import UUID

from onelane.bot import Memory
from onelane.errors import StoreUnavailable, TurnOutdated
from onelane.model import Attachment, File, Lease, TurnRead, Utterance
from onelane.sessions import Sessions
from onelane.turns.files import Files

HELD_UP_S: Final = 0.5
"""A read that takes longer is held up. One that a handler only begins as its time ends is not."""

Found = TypeVar("Found")


class TurnMemory(Memory):
    """One turn's reads: what they find is true only as long as nothing has changed since the turn began.

    A turn that is fenced or stale ends at its next read, before it costs more; its commit would be refused in any case.
    """

    def __init__(self, sessions: Sessions, turn: TurnRead, lease: Lease, files: Files | None = None) -> None:
        self._sessions = sessions
        self._files = files
        self._turn = turn
        self._lease = lease
        self._failed: StoreUnavailable | None = None
        """What the last read met, if it failed. Whatever a handler raises then, it is not its fault."""
        self._reading_since: list[float] = []
        """Of each read under way: a handler may read in several threads or tasks. Single operations are atomic."""

    def history(self, session_id: UUID, limit: int) -> list[Utterance]:
        """Return the last `limit` lines of the session; raise TurnOutdated when they may be too new."""
        return self._read(lambda: self._sessions.history(session_id, limit))

    def tool_output(self, session_id: UUID, name: str) -> Any:
        """Return the newest output saved under `name`, or None; raise TurnOutdated when it may be too new."""
        return self._read(lambda: self._sessions.tool_output(session_id, name))

    def fetching(self, attachment: Attachment) -> Future[File]:
        """Begin to fetch a file of the turn's channel: somebody else's service, so no read of ours."""
        return self._files.fetch(self._turn.user.channel, attachment) if self._files else super().fetching(attachment)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Enclose a read, with its wait for a thread to read in."""
        since = time.monotonic()
        self._reading_since.append(since)
        try:
            yield
        finally:
            self._reading_since.remove(since)

    @property
    def outage(self) -> StoreUnavailable | None:
        """What keeps the turn from reading: its last read failed, or one is held up."""
        held_up_before = time.monotonic() - HELD_UP_S
        if any(since < held_up_before for since in self._reading_since.copy()):
            return StoreUnavailable("a turn's read of its own session is held up")
        return self._failed

    def _read(self, find: Callable[[], Found]) -> Found:
        try:
            found = find()
            # Asked after the read: as the version only goes up, what was found is of the turn's instant.
            is_current = self._sessions.is_current(self._lease.user_id, self._turn.version, self._lease.fence)
        except StoreUnavailable as error:
            self._failed = error
            raise
        self._failed = None
        if not is_current:
            raise TurnOutdated("what this turn read has changed since it began")
        return found
