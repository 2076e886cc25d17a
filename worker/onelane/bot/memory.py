"""What a turn can ask for while its handler runs, whoever answers: Postgres, or a parent process through a pipe."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar
from uuid import UUID

from onelane.errors import FileError, StoreUnavailable
from onelane.history import Line
from onelane.model import Attachment, File, Message

Answer = TypeVar("Answer")


class Hold:
    """Decides how long what is paid for is held while it cannot be kept; this one holds nothing."""

    def rests(self, error: StoreUnavailable) -> Iterator[float]:
        """Yield the waits until the next try, in seconds; raise `error` once nothing is held any more."""
        raise error

    def done(self) -> None:
        """Note that it is kept."""
        return


class Memory(Protocol):
    """One turn's session, steps and files."""

    is_interrupted: bool = False
    """Whether a newer message throws the turn away, whatever its handler returns."""

    def history(self, session_id: UUID, limit: int) -> list[Line]:
        """Return the last `limit` lines, oldest first."""

    def tool_output(self, session_id: UUID, name: str) -> Any:
        """Return the newest output saved under `name`, or None."""

    def newer(self) -> list[Message]:
        """Take what has arrived since into the batch, and return it."""
        return []

    def known_step(self, key: str) -> tuple[bool, Any]:  # noqa: ARG002 - nothing is kept here
        """Return whether a step of this batch has a result, and which."""
        return False, None

    def keep_step(self, key: str, value: Any) -> Any:  # noqa: ARG002 - as above
        """Keep a step's result, and return the one that stands: the first."""
        return value

    def keeping(self) -> AbstractContextManager[Hold]:
        """Enclose all tries to keep a step's result."""
        return nullcontext(Hold())

    @property
    def held_s(self) -> float:
        """How many seconds the turn has waited for its results to be kept: no time of its handler."""
        return 0.0

    def shield(self) -> None:
        """Let nothing that arrives from now on throw the turn away."""
        return

    def interrupt(self, seq: int) -> None:  # noqa: ARG002 - as below
        """Throw the turn away for a newer message, by its number, unless it has taken that in or is shielded."""
        return

    def when_interrupted(self, stop: Callable[[], object] | None) -> None:  # noqa: ARG002 - nothing interrupts here
        """Call `stop` when the turn is thrown away; at once if that has happened."""
        return

    def fetching(self, attachment: Attachment) -> Future[File]:
        """Begin to fetch a file of the turn's channel."""
        raise FileError(f"{attachment.kind}: there are no files here")

    def reading(self) -> AbstractContextManager[None]:
        """Enclose a read, with its wait for a thread to read in."""
        return nullcontext()

    @property
    def outage(self) -> StoreUnavailable | None:
        """What keeps the turn from reading, if anything does: its time is not the handler's then."""
        return None


def kept(memory: Memory, key: str, value: Any) -> Any:
    """Keep a step's result, through an outage if it must be, and return the one that stands."""
    with memory.keeping() as hold:
        while True:
            try:
                with memory.reading():
                    stands = memory.keep_step(key, value)
            except StoreUnavailable as error:
                for wait_s in hold.rests(error):
                    time.sleep(wait_s)
            else:
                hold.done()
                return stands


async def held(ask: Callable[[], Awaitable[Answer]], hold: Hold, error: StoreUnavailable | None = None) -> Answer:
    """Ask until Postgres does it; raise what keeps it from that once nothing is held any more.

    `error` is what the first try has met, if it was made.
    """
    while True:
        if error is not None:
            for wait_s in hold.rests(error):
                await asyncio.sleep(wait_s)
        try:
            return await ask()
        except StoreUnavailable as again:
            error = again
