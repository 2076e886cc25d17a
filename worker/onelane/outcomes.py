"""What Postgres answers when a turn is to begin or to be settled."""

from enum import StrEnum
from uuid import UUID

from onelane.model import Failure, TurnRead, Value


class BeginOutcome(StrEnum):
    """What begin_turn found."""

    TURN = "turn"
    IDLE = "idle"
    AGAIN = "again"
    """Much came while the user was answered: a part of it is settled, the rest with the next begins."""
    PAUSED = "paused"
    FENCED = "fenced"


class SettleOutcome(StrEnum):
    """What became of a turn."""

    COMMITTED = "committed"
    ALREADY = "already"
    FENCED = "fenced"
    STALE = "stale"
    """Another turn changed what this one read: it runs again."""
    SUPERSEDED = "superseded"
    """A newer message belongs into its batch: nothing was stored, and the next turn answers both."""
    RETRY = "retry"
    """The failure is noted; the message goes on waiting."""
    LATER = "later"
    """Somebody else's service is away: the message goes on waiting, and lost no attempt."""
    DYING = "dying"
    """The failure is the last allowed; nothing is stored before the bot was asked for its word."""
    DEAD = "dead"
    """The failure was the last allowed; the message left the order."""
    PAUSED = "paused"
    """The failure was the last allowed; the user waits for an operator."""


class Begun(Value):
    """The answer of begin_turn."""

    user_id: UUID
    outcome: BeginOutcome
    fence: int
    """The newest fence that has written for this user."""
    hint: str | None = None
    """What the cached session id was worth: hit, miss, wrong or unused."""
    turn: TurnRead | None = None
    """With the outcome `turn`."""
    outbox: tuple[UUID, ...] = ()
    """Without a turn: the user's replies that are to be sent, in their order; the first of them, if they are many."""


class Postponed(Value):
    """That a turn's message goes on waiting, because what its handler needs is away."""

    laters: int
    """How often, this time counted."""
    left_s: float
    """For how long it may still wait."""
    asked_s: float | None
    """For how long the handler itself asked to wait."""


class Settled(Value):
    """The answer of settle_turn."""

    outcome: SettleOutcome
    has_more: bool
    """Whether the user has further waiting messages."""
    session_ms: int
    """How long the session id may be cached; 0: not at all."""
    outbox: tuple[UUID, ...] = ()
    """The user's replies that wait, in their order: the first of them, if they are many."""
    attempts: int | None = None
    """How many have failed, this one counted; 0 when a batch was divided, whose messages run alone now."""
    failure: Failure | None = None
    """With the outcome `dying`: the worker knows, not Postgres."""
    later: Postponed | None = None
    """With the outcome `later`."""
    next: Begun | None = None
    """What was begun in the same call; None when that was not asked for, or nothing more waits."""
