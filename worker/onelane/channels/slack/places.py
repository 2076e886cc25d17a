"""Where in Slack something was said: whose line it is, and how to answer there."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from html import unescape
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from onelane.channels import fields
from onelane.model import Author, JsonObject


def _id(text: str) -> str:
    if not re.fullmatch("[A-Za-z0-9_-]{1,64}", text):
        raise ValueError("must be an id of Slack")
    return text


def _ts(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,12}\.[0-9]{1,9}", text):
        raise ValueError("must be a time of Slack")
    return text


Id = Annotated[str, AfterValidator(_id)]
"""Of a team, a channel, a user, a file."""
Ts = Annotated[str, AfterValidator(_ts)]
"""Names a message in its channel: the second and microsecond in which Slack took it."""
TEXT_MAX: Final = 40_000
"""Slack cuts longer ones."""
ESCAPED: Final = re.compile("&(?:amp|lt|gt);")
DIRECT: Final = "D"
"""How the ids of channels between one person and one app begin."""


def plain(text: str) -> str:
    """Undo Slack's three escapes; its marks for names and links stay."""
    return ESCAPED.sub(lambda found: unescape(found[0]), text)


def escaped(text: str) -> str:
    """Escape what Slack escapes."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _read_text(text: object) -> object:
    """Take a text that is null for an empty one."""
    return plain(text) if isinstance(text, str) else "" if text is None else text


Text = Annotated[fields.Storable, Field(max_length=TEXT_MAX), BeforeValidator(_read_text)]


@dataclass(frozen=True, slots=True)
class Place:
    """A channel and a thread in it, and who wrote there; of a direct message the person decides, elsewhere the thread.

    What belongs to no thread of a channel (a command, an ephemeral message's button) is of that person in that channel.
    Without a channel (a form, a global shortcut) it is the person's.
    """

    team: str
    channel: str | None
    user: str | None
    thread: str | None = None
    """The `ts` of its first message."""
    user_name: str | None = None

    def line(self) -> JsonObject:
        """Return the fields of a Delivery that say whose it is."""
        return {
            "senders": tuple(filter(None, (self._person, self.channel if self._is_direct else None)))
            or (self.conversation,),
            "conversation": self.conversation,
            "author": Author(id=self.user, name=self.user_name) if self.user and self.conversation else None,
            "route": self.route,
        }

    @property
    def conversation(self) -> str | None:
        """The thread, where it is the conversation partner."""
        if self.channel is None or self._is_direct:
            return None
        within = self.thread or self.user
        return f"{self.channel}:{within}" if within else self.channel

    @property
    def route(self) -> JsonObject:
        """Where a reply is posted: Slack takes a person's id for the direct channel to them."""
        route = {"channel": self.channel or self.user, "thread_ts": self.thread, "team": self.team}
        return {name: value for name, value in route.items() if value is not None}

    @property
    def _is_direct(self) -> bool:
        return self.channel is not None and self.channel.startswith(DIRECT)

    @property
    def _person(self) -> str | None:
        return f"{self.team}:{self.user}" if self.user else None


def thread_in(channel: str, thread: str | None, ts: str) -> str | None:
    """Return the thread in which a message is: in a channel each message begins one, between two people none does."""
    return thread or (None if channel.startswith(DIRECT) else ts)


def key_of(*names: str) -> str:
    """Make one id of several names; apps may call their buttons as they like."""
    key = ":".join(names)
    return key if fields.is_visible(key) else sha256(key.encode()).hexdigest()


def instant(ts: str | float | None) -> datetime | None:
    """Read a time of Slack's, in seconds; None for one that no clock shows."""
    try:
        return None if ts is None else datetime.fromtimestamp(float(ts), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def raw_of(original: Mapping[str, Any]) -> JsonObject | None:
    """Keep Slack's own object, without what says the same again if it is large, and without the token of old apps."""
    kept = {name: value for name, value in original.items() if name != "token"}
    lean = {name: value for name, value in kept.items() if name not in {"blocks", "attachments", "message"}}
    return fields.bounded(kept) or fields.bounded(lean)
