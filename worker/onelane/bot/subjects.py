"""Who a turn is about, and the conversation in which it is: with the states that a handler may change."""

from datetime import datetime
from uuid import UUID

from onelane.model import JsonObject


class User:
    """The sender. `state` is a JSON object that outlives sessions; changes are committed with the turn."""

    def __init__(self, user_id: UUID, channel: str, sender: str, state: JsonObject) -> None:
        self.id = user_id
        self.channel = channel
        self.sender = sender
        self.state = state


class Session:
    """The conversation. `state` is a JSON object that ends with it; `summary` is a text that outlives it."""

    def __init__(
        self,
        session_id: UUID,
        started_at: datetime,
        state: JsonObject,
        summary: str | None = None,
        *,
        is_first: bool = False,
        previous_summary: str | None = None,
    ) -> None:
        self.id = session_id
        self.started_at = started_at
        self.state = state
        self.summary = summary
        """For the session after it; changes are committed with the turn."""
        self.is_first = is_first
        self.previous_summary = previous_summary
