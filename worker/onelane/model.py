"""The domain's values: frozen, built at the border, changed by copying."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, TypeAdapter

JsonObject = dict[str, Any]
NAMESPACE: Final = UUID("6a2f6d4e-5a0c-5d1b-9f1e-1c8a37f0b1de")


def user_id_of(channel: str, sender: str) -> UUID:
    """Compute the id of the user behind `sender` on `channel`, without a look-up."""
    return uuid5(NAMESPACE, f"{channel}:{sender}")


def uuid_or_none(text: str) -> UUID | None:
    """Read an id; None for anything else."""
    try:
        return UUID(text)
    except ValueError:
        return None


class Value(BaseModel):
    """A frozen value."""

    model_config = ConfigDict(frozen=True)


class Attachment(Value):
    """A file that a user sent, by address; Onelane never fetches it."""

    url: str
    content_type: str | None = None


class Delivery(Value):
    """One message of a webhook, as its channel's adapter understood it, before it is accepted."""

    sender: str
    """Who wrote, in the provider's words (a phone number, a chat id): stored in Postgres, shown nowhere else."""
    external_id: str
    """The provider's id of the message: a second delivery with it is a duplicate."""
    text: str = ""
    button: str | None = None
    attachments: tuple[Attachment, ...] = ()
    sent_at: datetime | None = None


class Accepted(Value):
    """The answer to one accepted message; it is committed."""

    message_id: UUID
    user_id: UUID
    seq: int
    duplicate: bool
    is_waiting: bool
    """Whether the message still waits for its turn; a duplicate may be long done."""


class Lease(Value):
    """A worker's right to a lane, as the lease script gave it."""

    user_id: UUID
    token: str
    """Names this lease and no other; the scripts act for it alone."""
    fence: int
    taken_over: bool = False
    """The lease before it ran out without being released: its holder died or hangs."""
    session_hint: UUID | None = None
    hint_is_malformed: bool = False


class Message(Value):
    """An inbound message."""

    id: UUID
    seq: int
    text: str
    button: str | None
    attachments: tuple[Attachment, ...]
    accepted_at: datetime
    attempts: int
    """Attempts that failed before this one."""
    deaths: int = 0
    """Workers that died with it in flight, unexplained."""


class Utterance(Value):
    """One line of a session's history."""

    seq: int
    """The turn's number in its user's order; a reply has its message's."""
    direction: str
    """`in` or `out`."""
    text: str
    button: str | None
    state: str
    accepted_at: datetime


class BeginOutcome(StrEnum):
    """What begin_turn found."""

    TURN = "turn"
    IDLE = "idle"
    PAUSED = "paused"
    FENCED = "fenced"


class CommitOutcome(StrEnum):
    """What became of a turn's write."""

    COMMITTED = "committed"
    ALREADY = "already"
    FENCED = "fenced"
    RETRY = "retry"
    """The failure is noted; the message goes on waiting."""
    DEAD = "dead"
    """The failure was the last allowed; the message left the order."""
    PAUSED = "paused"
    """The failure was the last allowed; the user waits for an operator."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The answer of begin_turn. Beyond `fence`, only a turn has values."""

    user_id: UUID
    outcome: BeginOutcome
    fence: int
    """The newest fence that has written for this user."""
    hint: str | None
    """What the cached session id was worth: hit, miss, stale or unused."""
    message_id: UUID
    seq: int
    text: str
    button: str | None
    attachments: list[JsonObject]
    accepted_at: datetime
    attempts: int
    deaths: int
    channel: str
    sender: str
    user_state: JsonObject
    session_id: UUID
    session_status: str
    session_started_at: datetime
    session_state: JsonObject

    @property
    def message(self) -> Message:
        """The message, as a handler sees it."""
        return Message(
            id=self.message_id,
            seq=self.seq,
            text=self.text,
            button=self.button,
            attachments=tuple(Attachment(**one) for one in self.attachments),
            accepted_at=self.accepted_at,
            attempts=self.attempts,
            deaths=self.deaths,
        )


BEGUN: Final = TypeAdapter(Begun)
"""Writes and reads it as JSON, for a child process."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a turn."""

    outcome: CommitOutcome
    has_more: bool
    """Whether the user has further waiting messages."""
    session_ms: int
    """How long the session id may be cached; 0: not at all."""
    attempts: int = 0
    next_turn: Begun | None = None
    """What was begun in the same call; None when that was not asked for, or nothing more waits."""
