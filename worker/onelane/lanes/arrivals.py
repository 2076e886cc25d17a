"""A message on its way to its user's lane, and what its channel wants while others are waited for or answered."""

from typing import Any, NamedTuple, TypedDict
from uuid import UUID

from onelane.config import Channel
from onelane.model import JsonObject


class Wait(TypedDict):
    """How long a lane without work waits for more of its user, as enqueue.lua reads it."""

    quiet_ms: int
    """After the last message."""
    longest_ms: int
    """After the first."""
    most: int
    """So many messages wait for no more."""
    is_over: bool
    """Whether this message ends the wait."""


class Arrival(NamedTuple):
    """A message, or with its first two fields alone whatever else has a job."""

    user_id: UUID
    message_id: UUID
    wait: Wait | None = None
    newer: int | None = None
    """Its number, where it may throw away the turn that runs."""

    def item(self, fields: list[str]) -> JsonObject:
        """Describe it to enqueue.lua; what its channel does not want costs nothing."""
        item: dict[str, Any] = {"user": str(self.user_id), "id": str(self.message_id), "fields": fields}
        wanted = {"wait": self.wait, "newer": self.newer}
        return item | {name: value for name, value in wanted.items() if value is not None}


def arrival(channel: Channel, line: JsonObject, answer: JsonObject) -> Arrival:
    """Make the arrival of a line, an item of `accept`, of what that answered."""
    ids = UUID(answer["user_id"]), UUID(answer["message_id"])
    is_alone = line.get("closes", False) or line.get("kind", "message") != "message"
    match channel.on_busy:
        case "collect":
            return Arrival(*ids, wait=_wait(channel, line, is_alone=is_alone))
        case "interrupt" if not is_alone:
            return Arrival(*ids, newer=answer["seq"])
    return Arrival(*ids)


def _wait(channel: Channel, line: JsonObject, *, is_alone: bool) -> Wait:
    is_text = not (channel.collect_text_waits or line.get("attachments"))
    return Wait(
        quiet_ms=round(channel.collect_quiet_s * 1000),
        longest_ms=round(channel.collect_max_s * 1000),
        most=channel.collect_max_messages,
        is_over=is_alone or is_text,
    )
