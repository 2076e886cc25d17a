"""A reply that waits in the outbox, and what Postgres answers about it."""

import time
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

from pydantic import Field

from onelane.channels.sending import Outgoing, Piece
from onelane.channels.verdicts import Scope, Verdict, Word
from onelane.model import Attachment, JsonObject, Value


class Waiting(Value):
    """The lowest reply of a user that is not terminal, as `begin_sends` read it."""

    id: UUID
    """Also the key by which the provider may know it."""
    seq: int
    ordinal: int
    channel: str
    to: tuple[str, ...] = Field(default=(), repr=False)
    """The user's aliases, preferred first."""
    text: str = Field(default="", repr=False)
    attachments: tuple[Attachment, ...] = Field(default=(), repr=False)
    parts: JsonObject | None = Field(default=None, repr=False)
    quoted: str | None = None
    raw: JsonObject | None = Field(default=None, repr=False)
    route: JsonObject | None = Field(default=None, repr=False)
    traceparent: str | None = None
    """What it comes of, where that was traced."""
    attempt: int
    """The number of the request that is marked now, or was last."""
    counted: int = 1
    """How many of its requests were attempts, this one included."""
    resent: bool = False
    """Whether it was sent again once already, because it had certainly not arrived."""
    accepted_at: datetime | None = None
    """When the message was accepted that it answers."""
    first_sent_at: datetime | None = None
    sending_at: datetime
    """When the last request was marked, before it began."""
    unknown_since: datetime | None = None
    ends_known: bool = False
    """Whether its last request is certainly over."""
    last_written_at: datetime | None = None
    """When the user wrote last."""
    now: datetime
    """The time of all this, by Postgres' clock."""
    asked_at: float = Field(default_factory=time.monotonic)
    """When it was asked for, on the monotonic clock."""
    read_at: float = Field(default_factory=time.monotonic)
    """When it was answered."""

    def seconds_since(self, then: datetime) -> float:
        """Return the seconds from `then` until now: never too few."""
        return (self.now - then).total_seconds() + time.monotonic() - self.asked_at

    def time(self) -> datetime:
        """Return Postgres' time: never too late."""
        return self.now + timedelta(seconds=time.monotonic() - self.read_at)

    @property
    def piece(self) -> Piece:
        """What it says."""
        parts = self.parts or {}
        return Piece(
            text=self.text,
            buttons=parts.get("buttons") or (),
            media=self.attachments,
            template=parts.get("template"),
            quote=self.quoted,
            raw=self.raw,
        )

    @property
    def has_files(self) -> bool:
        """Whether bytes are kept that are a part of it."""
        return any(one.file for one in self.attachments)

    def outgoing(self, callback_url: str | None) -> Outgoing:
        """Describe its request."""
        return Outgoing(self.id, self.to, self.piece, self.route, self.attempt, callback_url)

    def names(self, fence: int) -> dict[str, str | int]:
        """Return what identifies it in log lines, under a lease's fence."""
        return {"reply_id": str(self.id), "channel": self.channel, "attempt": self.attempt, "fence": fence}


class BeginOutcome(StrEnum):
    """What `begin_sends` found."""

    SEND = "send"
    """The reply is marked as being sent, under our fence."""
    UNKNOWN = "unknown"
    """Nobody knows whether its last request arrived."""
    WAIT = "wait"
    """The user's replies wait: for a limit, or after an error."""
    HELD = "held"
    """The channel's replies wait."""
    FULL = "full"
    """The channel has no place here now."""
    IDLE = "idle"
    FENCED = "fenced"


class Begun(Value):
    """The answer of `begin_sends`."""

    outcome: BeginOutcome
    fence: int = 0
    wait_ms: int | None = None
    channel: str | None = None
    reply: Waiting | None = None


class Deed(StrEnum):
    """What is to become of a reply."""

    ACCEPTED = "accepted"
    NOT_NOW = "not_now"
    NEVER = "never"
    BROKEN = "broken"
    UNKNOWN = "unknown"
    ABSENT = "absent"
    """It certainly did not arrive: it is sent again, once; then it has failed."""
    RESEND = "resend"
    """Nobody knows, and it is sent again: where a repetition is harmless, or wanted, and then once."""
    GIVE_UP = "give_up"
    """Nobody will ever know; the lane goes on."""
    WITHHOLD = "withhold"
    """The channel has no way to send."""


class Fate(NamedTuple):
    """What is to become of a reply, and why, as `settle_sends` takes it."""

    deed: Deed
    word: Word | None = None
    code: str = ""
    wait_s: float | None = None
    scope: Scope = Scope.USER
    counts: bool = True
    provider_id: str | None = None
    route: JsonObject | None = None

    @classmethod
    def of(cls, verdict: Verdict, wait_s: float | None = None) -> Self:
        """Do as a provider's answer says."""
        return cls(
            Deed(verdict.outcome),
            verdict.word,
            verdict.code,
            wait_s,
            verdict.scope,
            verdict.counts,
            verdict.provider_id,
            verdict.route,
        )

    def item(self) -> dict[str, Any]:
        """Write it as `settle_sends` takes it."""
        return {
            "outcome": self.deed,
            "provider_id": self.provider_id,
            "failure": self.word,
            "failure_code": self.code or None,
            "wait_s": self.wait_s,
            "scope": self.scope,
            "counts": self.counts,
            "route": self.route,
        }


def never(word: Word) -> Fate:
    """Fail, for a reason of ours."""
    return Fate(Deed.NEVER, word)


def handed_back(wait_s: float) -> Fate:
    """Take a mark back: no request was begun."""
    return Fate(Deed.NOT_NOW, wait_s=wait_s, counts=False)


class SettleOutcome(StrEnum):
    """Whether `settle_sends` did what it was asked."""

    SETTLED = "settled"
    ALREADY = "already"
    FENCED = "fenced"


DONE: Final = frozenset({"sent", "delivered", "read", "failed", "withheld", "dropped"})


class Settled(Value):
    """The answer of `settle_sends`."""

    outcome: SettleOutcome
    state: str | None = None
    """The reply's, now."""
    is_duplicate: bool = False
    """Whether its provider has another message of it, too: only now that is known."""
    has_more: bool = False
    next: Begun | None = None
    """What was begun in the same call."""

    def is_terminal(self, fate: Fate) -> bool:
        """Whether the reply has left the outbox."""
        return self.state in DONE or (self.state == "unknown" and fate.deed is Deed.GIVE_UP)
