"""What a turn reads of its session and fetches while its handler runs, and whether Postgres keeps it from reading."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Any, Final, TypeVar
from uuid import UUID

from onelane.bot.memory import Hold, Memory
from onelane.errors import StoreUnavailable, TurnOutdated
from onelane.history import Line
from onelane.model import Attachment, File, JsonObject, Lease, Message, TurnRead
from onelane.sessions import Sessions
from onelane.turns.files import Fetches

HELD_UP_S: Final = 0.5
"""A read that takes longer is held up. One that a handler only begins as its time ends is not."""

Found = TypeVar("Found")


class TurnMemory(Memory):
    """One turn's reads: what they find is true only as long as nothing has changed since the turn began.

    A turn that is fenced or stale ends at its next read, before it costs more; its commit would be refused in any case.
    """

    def __init__(
        self,
        sessions: Sessions,
        turn: TurnRead,
        lease: Lease,
        files: Fetches | None = None,
        hold: Callable[[], AbstractContextManager[Hold]] = lambda: nullcontext(Hold()),
        *,
        is_interruptible: bool = False,
    ) -> None:
        """`hold` begins to hold a step's result. With `is_interruptible`, newer messages throw the turn away."""
        self._sessions = sessions
        self._files = files
        self._turn = turn
        self._lease = lease
        self._hold = hold
        self.claimed: list[Message] = []
        """What arrived while the handler ran, and is the turn's too; in order. Only the handler's reads add to it."""
        self.is_shielded = not is_interruptible
        """Whether nothing that arrives may throw the turn away any more."""
        self._deciding = Lock()
        """Guards is_shielded and is_interrupted: only one of them ever becomes true."""
        self._on_interrupt: Callable[[], object] | None = None
        self._failed: StoreUnavailable | None = None
        """What the last read met, if it failed. Whatever a handler raises then, it is not its fault."""
        self._counting = Lock()
        """Guards the four below: a handler may keep steps, and read, in several threads or tasks."""
        self._waits = 0
        self._waiting_since = 0.0
        self._keeps_meanwhile = False
        self._held_s = 0.0
        self._reading_since: list[float] = []
        """Of each read under way: a handler may read in several threads or tasks. Single operations are atomic."""

    def history(self, session_id: UUID, limit: int) -> list[Line]:
        """Return the last `limit` lines of the session; raise TurnOutdated when they may be too new."""
        return self._read(lambda: self._sessions.history(session_id, limit))

    def tool_output(self, session_id: UUID, name: str) -> Any:
        """Return the newest output saved under `name`, or None; raise TurnOutdated when it may be too new."""
        return self._read(lambda: self._sessions.tool_output(session_id, name))

    def newer(self) -> list[Message]:
        """Take what has arrived since into the batch; raise TurnOutdated for a turn that may write no more."""
        newer = self._asked(lambda: self._sessions.claim_newer(self._named([*self._turn.messages, *self.claimed])))
        self.claimed += newer
        return newer

    def known_step(self, key: str) -> tuple[bool, Any]:
        """Return whether a step of this batch has a result, and which; raise TurnOutdated."""
        return self._asked(lambda: self._sessions.keep_step({**self._named(self._turn.messages), "key": key}))

    def keep_step(self, key: str, value: Any) -> Any:
        """Keep a step's result, and return the one that stands: the first; raise TurnOutdated."""
        step = {**self._named(self._turn.messages), "key": key, "value": value}
        _, kept = self._asked(lambda: self._sessions.keep_step(step))
        return kept

    @contextmanager
    def keeping(self) -> Iterator[Hold]:
        """Enclose all tries to keep a step's result, and count their time once."""
        with self._waiting(is_keeping=True), self._hold() as hold:
            yield hold

    @contextmanager
    def _waiting(self, *, is_keeping: bool) -> Iterator[None]:
        """Enclose a wait of the handler for us. What goes on at once is counted once; a read only if it is held up."""
        with self._counting:
            if not self._waits:
                self._waiting_since, self._keeps_meanwhile = time.monotonic(), False
            self._waits += 1
            self._keeps_meanwhile |= is_keeping
        try:
            yield
        finally:
            with self._counting:
                self._waits -= 1
                waited_s = time.monotonic() - self._waiting_since
                if not self._waits and (self._keeps_meanwhile or waited_s > HELD_UP_S):
                    self._held_s += waited_s

    @property
    def held_s(self) -> float:
        """How many seconds the turn has waited for its results to be kept, and for reads that were held up."""
        with self._counting:
            is_held = self._waits and self._keeps_meanwhile
            return self._held_s + (time.monotonic() - self._waiting_since if is_held else 0.0)

    def shield(self) -> None:
        """Let nothing that arrives throw the turn away from now on; raise TurnOutdated if something has."""
        with self._deciding:
            if self.is_interrupted:
                raise TurnOutdated("a newer message has thrown this turn away")
            self.is_shielded = True

    def interrupt(self, seq: int) -> None:
        """Throw the turn away for a newer message, unless it has taken that in or is shielded."""
        with self._deciding:
            is_newer = seq > max(message.seq for message in (*self._turn.messages, *self.claimed))
            self.is_interrupted = self.is_interrupted or (is_newer and not self.is_shielded)
        if self.is_interrupted and (stop := self._on_interrupt) is not None:
            stop()

    def when_interrupted(self, stop: Callable[[], object] | None) -> None:
        """Call `stop` when the turn is thrown away; at once if that has happened."""
        self._on_interrupt = stop
        if stop is not None and self.is_interrupted:
            stop()

    def fetching(self, attachment: Attachment) -> Future[File]:
        """Begin to fetch a file of the turn's channel: somebody else's service, so no read of ours."""
        return self._files.fetch(self._turn.user.channel, attachment) if self._files else super().fetching(attachment)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Enclose a read, with its wait for a thread to read in."""
        since = time.monotonic()
        self._reading_since.append(since)
        try:
            with self._waiting(is_keeping=False):
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

    def _named(self, messages: Sequence[Message]) -> JsonObject:
        """Name the turn and a batch, as SQL compares them."""
        return {
            "user_id": str(self._lease.user_id),
            "fence": self._lease.fence,
            "version": self._turn.version,
            "session_id": str(self._turn.session.id),
            "seqs": [message.seq for message in messages],
        }

    def _read(self, find: Callable[[], Found]) -> Found:
        def found_now() -> Found:
            found = find()
            # Asked after the read: as the version only goes up, what was found is of the turn's instant.
            if not self._sessions.is_current(self._lease.user_id, self._turn.version, self._lease.fence):
                raise TurnOutdated("what this turn read has changed since it began")
            return found

        return self._asked(found_now)

    def _asked(self, ask: Callable[[], Found]) -> Found:
        try:
            found = ask()
        except StoreUnavailable as error:
            self._failed = error
            raise
        except TurnOutdated:
            self._failed = None
            raise
        self._failed = None
        return found
