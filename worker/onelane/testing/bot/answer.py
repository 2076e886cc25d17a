"""What somebody gets for what was written, and what can be seen of a conversation."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from onelane.history import Line
from onelane.model import JsonObject, Value


class Outcome(StrEnum):
    """What became of the last message that was written."""

    PROCESSED = "processed"
    WAITING = "waiting"
    """It waits: the handler asked for later, or the person is paused."""
    DEAD = "dead"
    """Its last allowed attempt failed."""
    DUPLICATE = "duplicate"
    """It had been accepted before: nothing happened."""


class SessionSeen(Value):
    """A session."""

    id: UUID
    status: str
    """`active`, `escalated` or `ended`."""
    started_at: datetime
    ended_at: datetime | None = None
    ended_reason: str | None = None
    state: JsonObject


class Answer(list[str]):
    """The texts of the replies, in order, so that it compares with a list; and what else came."""

    def __init__(
        self, replies: Sequence[Line], outcome: Outcome, session: SessionSeen | None, failures: Sequence[str]
    ) -> None:
        super().__init__(line.text for line in replies)
        self.replies = tuple(replies)
        """With their buttons, media and states."""
        self.outcome = outcome
        self.session = session
        """The newest session by then."""
        self.failures = tuple(failures)
        """Where and why the handler failed meanwhile."""

    def __repr__(self) -> str:
        """Show why an answer is missing, where a comparison fails."""
        said = super().__repr__()
        if self.outcome is Outcome.PROCESSED and not self.failures:
            return said
        return "\n".join([f"{said} ({self.outcome})", *self.failures])
