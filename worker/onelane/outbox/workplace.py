"""What every shipment of a process works with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Final, Self
from uuid import UUID

from onelane.channels.provider import Provider
from onelane.channels.sender import OnUnknown
from onelane.channels.sending import Outgoing
from onelane.config import Channel, Settings
from onelane.lanes.lanes import Lanes
from onelane.outbox.circuits import Circuits
from onelane.outbox.postponing import Postponing
from onelane.outbox.records import SendRecords
from onelane.outbox.reply import Waiting
from onelane.outbox.sending import Sending, open_client
from onelane.outbox.settling import Rules
from onelane.outbox.shares import Shares
from onelane.outbox.telling import Telling
from onelane.turns.event_loop import EventLoop
from onelane.turns.pacing import Outages

SHARE: Final = 3 / 4
"""Of all slots, for one channel of several."""


@dataclass(frozen=True)
class Way:
    """How replies of one channel are sent."""

    provider: str
    sending: Sending
    rules: Rules
    callback_url: str | None

    @classmethod
    def of(cls, name: str, channel: Channel, provider: Provider, settings: Settings, most: int) -> Self | None:
        """Open the way; None for a channel that has none."""
        sender = provider.sender
        if sender is None:
            return None
        rules = Rules(
            on_unknown=OnUnknown(channel.on_unknown or sender.on_unknown),
            own=sender.on_unknown,
            absent_after_s=sender.absent_after_s,
            deadline_s=settings.send_deadline_s,
            hold_s=settings.unknown_hold_s,
            give_up_s=settings.send_give_up_s,
        )
        base_url = channel.public_url and channel.public_url.rstrip("/")
        sending = Sending(sender, open_client(sender, most), settings.send_deadline_s)
        return cls(channel.provider, sending, rules, f"{base_url}/webhooks/{name}" if base_url else None)

    def outgoing(self, reply: Waiting) -> Outgoing:
        """Describe the request for a reply."""
        return reply.outgoing(self.callback_url)

    def is_closed_for(self, reply: Waiting) -> bool:
        """Whether the provider certainly takes this no more: the user wrote too long ago. Templates it always takes."""
        window_s = self.sending.sender.window_s(reply.to)
        if window_s is None or (reply.parts or {}).get("template") is not None:
            return False
        return reply.last_written_at is None or reply.seconds_since(reply.last_written_at) > window_s


@dataclass(frozen=True)
class Workplace:
    """The process's settings, lanes, records, and ways to send."""

    settings: Settings
    lanes: Lanes
    records: SendRecords
    ways: Mapping[str, Way | None]
    """By channel; None: it has no way to send."""
    loop: EventLoop
    stopping: Event
    """Once set, a lane is handed on after the request at hand."""
    shares: Shares
    postponing: Postponing
    telling: Telling
    circuits: Circuits = field(default_factory=Circuits)
    outages: Outages = field(default_factory=Outages)

    def without_place_s(self, channel: str, user_id: UUID) -> float:
        """Return how long a lane waits that finds no place; let others of its channel wait, too."""
        pause_s = self.shares.pause_s(channel, user_id)
        self.postponing.soon(channel, partial(self.shares.pause_s, channel))
        return pause_s


def opened(
    settings: Settings,
    lanes: Lanes,
    records: SendRecords,
    providers: Mapping[str, Provider],
    loop: EventLoop,
    stopping: Event,
    tell_failures: Callable[[], object],
) -> Workplace:
    """Open the ways of all channels."""
    slots = settings.send_slots
    can_send = sum(provider.sender is not None for provider in providers.values())
    most = slots if can_send <= 1 else max(1, int(slots * SHARE))
    ways = {
        name: Way.of(name, settings.channels[name], provider, settings, most) for name, provider in providers.items()
    }
    postponing, telling = Postponing(lanes, records), Telling(tell_failures)
    return Workplace(settings, lanes, records, ways, loop, stopping, Shares(most), postponing, telling)
