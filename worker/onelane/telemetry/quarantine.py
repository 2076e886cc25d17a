"""The events of webhooks that were not understood."""

from collections.abc import Mapping
from typing import Final

from onelane.telemetry.event import Event

QUARANTINE: Final[Mapping[str, Event]] = {
    "webhook_quarantined": Event(
        "warning",
        "A verified webhook, or a part of it, was not understood (`reasons`); it is kept whole: "
        "`onelane quarantine show`.",
        ("channel", "quarantined_id", "reasons"),
    ),
    "quarantine_full": Event(
        "error",
        "A channel's quarantine has `most` webhooks; the next was refused, and its provider delivers it again.",
        ("channel", "most"),
    ),
    "adapter_failed": Event(
        "error", "A channel's adapter has a bug; the webhook in which it shows is in quarantine.", ("failure",)
    ),
    "quarantine_replayed": Event(
        "info",
        "An operator had a quarantined webhook read again; `reasons` is why it stays, empty: it has left.",
        ("channel", "quarantined_id", "accepted", "reasons"),
    ),
    "quarantine_dropped": Event("info", "An operator deleted a quarantined webhook.", ("quarantined_id",)),
}
