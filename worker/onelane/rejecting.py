"""What is said to whoever writes while he is answered, on a channel that takes no further message then."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from onelane.channels.provider import Provider
from onelane.channels.senders import Senders
from onelane.channels.sending import Piece
from onelane.config import Settings
from onelane.lanes.arrivals import Arrival
from onelane.lanes.enqueueing import Enqueueing
from onelane.model import JsonObject


class BusyReplies:
    """The busy replies of all channels that make one. Postgres decides who gets one, as it accepts his message."""

    def __init__(self, settings: Settings, providers: Mapping[str, Provider], out_lanes: Enqueueing) -> None:
        senders = Senders(providers)
        self._rows = {
            name: senders.rows(name, [Piece(text=channel.busy_reply)] if channel.busy_reply else [])
            for name, channel in settings.channels.items()
            if channel.on_busy == "reject"
        }
        """By channel, as store_replies takes them."""
        self._out_lanes = out_lanes

    def of(self, channel: str) -> JsonObject:
        """Return what an item of `accept` says of it; nothing on all other channels."""
        return {"busy_replies": self._rows[channel]} if channel in self._rows else {}

    def send(self, answers: Iterable[JsonObject], ends: float) -> None:
        """Put what `accept` has stored on its lanes, until `ends`, by the monotonic clock."""
        stored = [Arrival(UUID(one["user_id"]), UUID(reply)) for one in answers for reply in one.get("outbox") or ()]
        self._out_lanes.enqueue(stored, ends)
