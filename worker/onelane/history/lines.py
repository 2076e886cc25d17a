"""The lines of a session's history, oldest first."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from onelane.model import Attachment, Author, Button, JsonObject, Message, Value

UNSAID: Final = frozenset({"failed", "withheld", "dropped"})
"""States of replies that nobody has seen."""


class Role(StrEnum):
    """Whose line it is."""

    USER = "user"
    BOT = "bot"
    TOOL = "tool"
    """A call of one of the bot's tools and its output: one line, so that neither is ever without the other."""
    AGENT = "agent"
    """A human of our side said it, in the provider's own app or on the operator's pages."""
    EVENT = "event"


class ToolCall(Value):
    """A call of a tool, with what came of it."""

    id: str
    name: str
    arguments: JsonObject
    output: Any
    """JSON."""


class Line(Value):
    """One line."""

    role: Role
    seq: int
    """The number of the turn, in its user's order."""
    at: datetime
    """When its message was accepted; a reply has its message's time."""
    text: str = ""
    """As its writer edited it last; empty when the line was deleted."""
    button: str | None = None
    media: tuple[Attachment, ...] = ()
    buttons: tuple[Button, ...] = ()
    """That the user may press, where it is a reply."""
    author: Author | None = None
    """Who wrote, where the user is a group or thread."""
    event: str | None = None
    """What happened, where it is an event."""
    state: str | None = None
    """What became of it, where it is a reply."""
    call: ToolCall | None = None
    """Where it is a tool's."""


def line_of(message: Message) -> Line:
    """Make the line of a message that is to be answered; one without words says what is in it."""
    is_event = message.kind == Role.EVENT
    has_words = message.text.strip() or message.button or message.attachments or is_event
    return Line(
        role=Role.EVENT if is_event else Role.USER,
        seq=message.seq,
        at=message.accepted_at,
        text=message.text if has_words else " ".join(f"[{name}]" for name in message.parts or ("message",)),
        button=message.button,
        media=message.attachments,
        author=message.author,
        event=message.event,
    )


class Said(Value):
    """What somebody said, as a text without attachments."""

    is_ours: bool
    text: str


def told(lines: Sequence[Line]) -> Iterator[Said | ToolCall]:
    """Yield what a model is told of each line: what was said, in words, and the calls of tools.

    What says nothing is left out, and so are replies that the user has never seen.
    """
    authors = {line.author.id for line in lines if line.author is not None and line.role is Role.USER}
    for line in lines:
        if line.call is not None:
            yield line.call
        elif line.state not in UNSAID and (text := _words(line, is_named=len(authors) > 1)):
            yield Said(is_ours=line.role in {Role.BOT, Role.AGENT}, text=text)


def _words(line: Line, *, is_named: bool) -> str:
    """Put a line into words. A file is named, and not shown: providers hand them out to our token alone."""
    files = [f"[{' '.join(filter(None, (file.kind, file.name)))}]" for file in line.media]
    event = f"[{line.event}]" if line.role is Role.EVENT else ""
    text = "\n".join(filter(None, (event, line.text.strip() or (line.button or "").strip(), *files)))
    has_speaker = is_named and text and line.author is not None and line.author.name and line.role is Role.USER
    return f"{line.author.name}: {text}" if has_speaker and line.author else text
