"""Who handles a message: nobody, when a human has the session; a command; a child process for a suspect; the host."""

from typing import NamedTuple

from onelane.bot import Memory
from onelane.config import Channel, Settings
from onelane.errors import HandlerFailed
from onelane.lanes.holding import Holding
from onelane.model import Begun, JsonObject
from onelane.turns.hosting import Host, turn_of
from onelane.turns.isolation import Isolation

SUSPECT_AFTER_DEATHS = 2
"""Worker deaths with a message in flight after which its handler runs in a process of its own."""
DEATHS_PER_ATTEMPT = 5
"""Deaths whose cause nobody saw count as one failed attempt when there are this many."""
MINUTE_MS = 60_000


class Handled(NamedTuple):
    """A handler's effects, or why it failed."""

    effects: JsonObject
    failure: str | None = None


class Handling:
    """Runs the handler for one message at a time and user."""

    def __init__(self, settings: Settings, memory: Memory, host: Host, isolation: Isolation) -> None:
        self._settings = settings
        self._memory = memory
        self._host = host
        self.isolation = isolation

    def run(self, begun: Begun, holding: Holding) -> Handled:
        """Return what the message leads to; whatever is the handler's fault is a failure."""
        if begun.session_status == "escalated":
            return Handled({})
        if (ending := self._ending(begun)) is not None:
            return Handled(ending)
        if begun.deaths >= DEATHS_PER_ATTEMPT:
            return Handled({}, f"{begun.deaths} workers died with this message in flight")
        try:
            if is_suspect(begun):
                return Handled(self.isolation.run(begun, holding, self._memory))
            return Handled(self._host.run(turn_of(begun, self._memory, holding.cancelled), holding))
        except HandlerFailed as error:
            return Handled({}, str(error))

    def pace_ms(self, begun: Begun) -> int:
        """Return the time between turns that the channel's rate limit asks for; 0 without one."""
        channel = self._channel(begun)
        return MINUTE_MS // channel.rate_per_minute if channel and channel.rate_per_minute else 0

    def _ending(self, begun: Begun) -> JsonObject | None:
        """Return what a message that ends the session does, or None for any other message."""
        channel = self._channel(begun)
        text = begun.text.strip().casefold()
        if channel is None or all(text != word.casefold() for word in channel.end_words):
            return None
        return {"end": "user_request", "replies": [{"text": channel.end_reply}] if channel.end_reply else []}

    def _channel(self, begun: Begun) -> Channel | None:
        """Return the message's channel; None when it is configured no more."""
        return self._settings.channels.get(begun.channel)


def is_suspect(begun: Begun) -> bool:
    """Whether the message was in flight at so many deaths that it must run apart."""
    return begun.deaths >= SUSPECT_AFTER_DEATHS
