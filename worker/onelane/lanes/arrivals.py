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

    def item(self, fields: list[str]) -> JsonObject:
        """Describe it to enqueue.lua; what its channel does not want costs nothing."""
        item: dict[str, Any] = {"user": str(self.user_id), "id": str(self.message_id), "fields": fields}
        return {**item, "wait": self.wait} if self.wait else item


def arrival(user_id: UUID, message_id: UUID, channel: Channel, line: JsonObject) -> Arrival:
    """Make the arrival of an accepted line: an item of `accept`."""
    return Arrival(user_id, message_id, _wait(channel, line) if channel.on_busy == "collect" else None)


def _wait(channel: Channel, line: JsonObject) -> Wait:
    is_alone = line.get("closes", False) or line.get("kind", "message") != "message"
    is_text = not (channel.collect_text_waits or line.get("attachments"))
    return Wait(
        quiet_ms=round(channel.collect_quiet_s * 1000),
        longest_ms=round(channel.collect_max_s * 1000),
        most=channel.collect_max_messages,
        is_over=is_alone or is_text,
    )
