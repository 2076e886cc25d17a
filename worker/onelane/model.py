"""The domain's values: frozen, built at the border, changed by copying."""

import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Self
from uuid import UUID, uuid4

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from onelane import keys
from onelane.storable import storable

JsonObject = dict[str, Any]


def uuid_or_none(text: str) -> UUID | None:
    """Read an id; None for anything else."""
    try:
        return UUID(text)
    except ValueError:
        return None


class Value(BaseModel):
    """A frozen value."""

    model_config = ConfigDict(frozen=True)


class AttachmentKind(StrEnum):
    """What a file is to the person who sent it."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    VOICE = "voice"
    STICKER = "sticker"
    FILE = "file"


class Attachment(Value):
    """A file that a user sent, by address or by the provider's id; `turn.fetch` gets it. Or one for the user."""

    url: str | None = None
    id: str | None = None
    file: UUID | None = None
    """Of a reply: an `Upload` that is kept until it is sent."""
    kind: AttachmentKind = AttachmentKind.FILE
    content_type: str | None = None
    name: str | None = None
    size: int | None = None
    """In bytes, as the provider says."""


CONTENT_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}")


class Upload(Value):
    """A file for the user, by its bytes."""

    data: Annotated[bytes, Field(repr=False)]
    name: str
    content_type: str
    id: UUID = Field(default_factory=uuid4)
    """Of what is kept of it; another one each time that it is sent."""

    def described(self) -> Attachment:
        """Describe it, without its bytes."""
        kinds = {"image": AttachmentKind.IMAGE, "video": AttachmentKind.VIDEO, "audio": AttachmentKind.AUDIO}
        kind = kinds.get(self.content_type.partition("/")[0], AttachmentKind.FILE)
        return Attachment(file=self.id, kind=kind, content_type=self.content_type, name=self.name, size=len(self.data))


class Button(Value):
    """What a user may press under a message."""

    id: str
    """Comes back as `turn.message.button`."""
    title: str
    """For the user to read."""


class File(Value):
    """A file's bytes, as its provider sent them."""

    content: Annotated[bytes, Field(repr=False)]
    content_type: str | None = None


class Author(Value):
    """Who wrote a line, and the name that the provider shows."""

    id: str
    name: str | None = None


class Lease(Value):
    """A worker's right to a lane, as the lease script gave it."""

    user_id: UUID
    kind: str = keys.IN
    token: str
    """Names this lease and no other; the scripts act for it alone."""
    fence: int
    taken_over: bool = False
    """The lease before it ran out without being released: its holder died or hangs."""
    taken_from: str | None = None
    """That lease's token, where Redis still knew it."""
    session_hint: UUID | None = None
    hint_is_malformed: bool = False


class Message(Value):
    """An inbound message, or an event."""

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
    laters: int = 0
    """Runs before this one that were put off, because what the handler needs was away."""
    kind: str = "message"
    """`message` or `event`."""
    event: str | None = None
    """What happened, in a word, when it is an event: reaction, edited, deleted, joined, …"""
    external_id: str = ""
    """The provider's own id of it."""
    parts: JsonObject = Field(default_factory=dict)
    """What is neither text nor file, by its name: {"location": {…}}, {"contacts": […]}, {"reaction": {…}}."""
    raw: JsonObject | None = None
    """The provider's own object, unless it is larger than 16 kB."""
    quoted: str | None = None
    """The provider's id of the line that it answers, edits, deletes or reacts to."""
    author: Author | None = None
    """Who wrote, where the user is a group or thread."""
    mentioned: bool = False
    """That it calls the bot by its name, where others talk too."""
    repairs: tuple[str, ...] = ()
    """What had to be mended so that it could be stored."""
    route: JsonObject | None = None
    traceparent: str | None = None
    sent_at: datetime | None = None
    """When it was sent, by the provider's clock, where the provider says so."""


class UserRead(Value):
    """A user, as a turn read it."""

    id: UUID
    channel: str
    sender: str
    state: JsonObject
    last_written_at: datetime | None = None
    """When the user's newest message was accepted: an event or an echo is none."""


class SessionRead(Value):
    """A session, as a turn read it."""

    id: UUID
    status: str
    started_at: datetime
    state: JsonObject
    summary: str | None = None
    is_first: bool = False
    """Whether it began with this turn."""
    previous_summary: str | None = None
    """Of the session before, where this one began with this turn."""


class Failure(Value):
    """Why a run of a handler has no effects."""

    error: Annotated[str, BeforeValidator(storable)]
    """Its place and kind; it quotes no message. Names of classes and files may hold anything."""
    is_suspect: bool = False
    """The message runs in a process of its own from now on."""
    waits: bool = False
    """What the handler needs is away: the message waits, as long as it may, and loses no attempt."""
    asked_s: float | None = None
    """For how long the handler itself asked to wait."""
    reason: Annotated[str, BeforeValidator(storable)] = ""
    """Why, in the bot author's words: for Postgres alone."""


class TurnRead(Value):
    """All that a turn reads as it begins, of one instant. Shaped by `sql/functions/begin_turn.sql`."""

    version: int
    """Names the instant: a commit is refused when the user has another by then."""
    messages: tuple[Message, ...]
    """Its batch, in order."""
    superseded: int = 0
    """How many turns of this batch in a row were thrown away for what came meanwhile."""
    user: UserRead
    session: SessionRead
    reply_until: datetime | None = None
    """Until when the provider takes anything but a template; None: always. The worker knows, not Postgres."""
    failure: Failure | None = None
    """Why its message dies, where the bot says something to that."""

    @property
    def message(self) -> Message:
        """The last of its messages."""
        return self.messages[-1]

    @property
    def first(self) -> Message:
        """The first of them, which counts the batch's attempts, deaths and delays."""
        return self.messages[0]

    def widened(self, newer: Sequence[Message]) -> Self:
        """Return it with what it has taken in."""
        return self.model_copy(update={"messages": (*self.messages, *newer)})

    def names(self, fence: int) -> dict[str, str | int]:
        """Return what identifies it in log lines, under a lease's fence."""
        return {
            "user_id": str(self.user.id),
            "message_id": str(self.message.id),
            "session_id": str(self.session.id),
            "seq": self.message.seq,
            "fence": fence,
        }
