"""What a webhook holds, as its channel's adapter understood it, before and after it is accepted."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from onelane.model import Attachment, Author, JsonObject, Value


class Kind(StrEnum):
    """What a numbered line of a conversation is."""

    MESSAGE = "message"
    EVENT = "event"
    """No message: a reaction, an edit, somebody joined. It makes a turn only if the bot has a function for events."""
    ECHO = "echo"
    """Our side said it, but not through us: a colleague in the provider's own app."""


class Delivery(Value):
    """One numbered line: a message, an event or an echo."""

    senders: tuple[str, ...]
    """Every identifier that the provider gives for who wrote (a phone number, a scoped id), preferred first.

    Of an echo: of the person to whom it was said. Stored in Postgres, shown to operators alone.
    """
    conversation: str | None = None
    """The group or thread in which it was written, where that and not the person is the conversation partner."""
    external_id: str
    """Names it in its channel: a second delivery with it is a duplicate. The adapter makes one where there is none."""
    kind: Kind = Kind.MESSAGE
    is_ours: bool = False
    """Of an echo: that the bot's own app said it, and no colleague, so that nobody has taken over."""
    event: str | None = None
    """What happened, in our word: reaction, edited, deleted, opened, opted_out, opted_in, unsupported, …"""
    text: str = ""
    button: str | None = None
    closes: bool = False
    """That it is a command or a button: it never waits for further messages to be answered together."""
    attachments: tuple[Attachment, ...] = ()
    parts: JsonObject = Field(default_factory=dict)
    """What is neither text nor file, by its name: {"location": {…}}, {"contacts": […]}, {"order": {…}}."""
    raw: JsonObject | None = None
    """The provider's own object, as far as `fields.bounded` keeps it: for what is not modelled here."""
    quoted: str | None = None
    """The provider's id of the line that it answers, edits, deletes or reacts to."""
    author: Author | None = None
    """Who wrote: in a group or thread always, else where the provider gives a name to show."""
    mentioned: bool = False
    """That it calls the bot by its name, where others talk too."""
    repairs: tuple[str, ...] = ()
    """What had to be mended so that it could be stored, in a word each: nul, surrogate, …"""
    route: JsonObject | None = None
    """What the adapter needs for the way back."""
    sent_at: datetime | None = None


class IdentityChange(Value):
    """That a person is called differently from now on."""

    senders: tuple[str, ...]
    """The names that were known before, preferred first."""
    external_id: str
    adds: tuple[str, ...] = ()
    """Names that mean the same person from now on."""
    drops: tuple[str, ...] = ()
    """Names that do not any more."""
    has_new_owner: bool = False
    """That somebody else may have the number now: nothing earlier is offered until an operator confirms."""
    route: JsonObject | None = None
    """What the adapter needs for the way back from now on, without the names that are dropped."""
    raw: JsonObject | None = None
    sent_at: datetime | None = None


class Status(Value):
    """What the provider says became of a reply."""

    provider_id: str
    state: str
    """`sent`, `delivered`, `read` or `failed`."""
    key: UUID | None = None
    """The reply's own id, where the provider gives it back."""
    participant: str | None = None
    """Whose copy this is about, in a group."""
    at: datetime | None = None
    failure_code: str | None = None
    """The provider's own code."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Understood, and nothing that a bot needs: counted by `what`, a word of ours."""

    what: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Signed, and not understood: the whole request is kept, its neighbours stand."""

    reason: str
    """What is wrong and where; it quotes nothing of the request."""


Item = Delivery | IdentityChange | Status | Ignored | Quarantined
"""What an adapter makes of a part of a verified webhook."""


class Accepted(Value):
    """The answer to one accepted delivery; it is committed."""

    message_id: UUID
    user_id: UUID
    seq: int
    duplicate: bool
    is_waiting: bool
    """Whether it still waits for its turn; a duplicate may be long done."""
