"""What is said to whoever writes while he is answered, on a channel that takes no further message then."""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from onelane.errors import LanesUnavailable
from onelane.lanes.lanes import Lanes
from onelane.model import JsonObject
from onelane.telemetry.log import event


class BusyReplies:
    """The busy replies of all channels that make one. Postgres decides who gets one, as it accepts his message."""

    def __init__(self, rows: Mapping[str, Sequence[JsonObject]], out_lanes: Lanes) -> None:
        """Take what each channel says, by its name, as store_replies takes it."""
        self._rows = rows
        self._out_lanes = out_lanes

    def of(self, channel: str) -> JsonObject:
        """Return what an item of `accept` says of it; nothing on all other channels."""
        return {"busy_replies": self._rows[channel]} if channel in self._rows else {}

    def send(self, answers: Iterable[JsonObject]) -> None:
        """Put what `accept` has stored on its lanes; the reconciler does it where Redis is away."""
        stored = [(UUID(one["user_id"]), UUID(reply)) for one in answers for reply in one.get("outbox") or ()]
        try:
            if stored:
                self._out_lanes.enqueue_many(stored)
        except LanesUnavailable as error:
            event("enqueue_postponed", messages=len(stored), error=str(error))
