"""Who handles a message: nobody, when a human has the session; a command; a child process for a suspect; the host."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from onelane.config import Channel, Settings
from onelane.errors import HandlerFailed, HandlerWaits, StoreUnavailable, TurnOutdated
from onelane.lanes.holding import Holding
from onelane.model import Failure, JsonObject, Lease, TurnRead, Utterance
from onelane.sessions import Sessions
from onelane.turns.hosting import Host
from onelane.turns.isolation import Isolation

SUSPECT_AFTER_DEATHS = 2
"""Worker deaths with a message in flight after which its handler runs in a process of its own."""
DEATHS_PER_ATTEMPT = 5
"""Deaths whose cause nobody saw count as one failed attempt when there are this many."""
MINUTE_MS = 60_000

Found = TypeVar("Found")


class Handled(NamedTuple):
    """A handler's effects, or why it failed."""

    effects: JsonObject
    failure: Failure | None = None


class TurnMemory:
    """What a turn reads of its own session while its handler runs: only as long as nothing has changed since it began.

    A turn that is fenced or stale ends at its next read, before it costs more; its commit would be refused in any case.
    """

    def __init__(self, sessions: Sessions, turn: TurnRead, lease: Lease) -> None:
        self._sessions = sessions
        self._turn = turn
        self._lease = lease
        self.outage: StoreUnavailable | None = None
        """What the last read met, if it failed. Whatever a handler raises then, it is not its fault."""

    def history(self, session_id: UUID, limit: int) -> list[Utterance]:
        """Return the last `limit` lines of the session; raise TurnOutdated when they may be too new."""
        return self._read(lambda: self._sessions.history(session_id, limit))

    def tool_output(self, session_id: UUID, name: str) -> Any:
        """Return the newest output saved under `name`, or None; raise TurnOutdated when it may be too new."""
        return self._read(lambda: self._sessions.tool_output(session_id, name))

    def _read(self, find: Callable[[], Found]) -> Found:
        try:
            found = find()
            # Asked after the read: as the version only goes up, what was found is of the turn's instant.
            is_current = self._sessions.is_current(self._lease.user_id, self._turn.version, self._lease.fence)
        except StoreUnavailable as error:
            self.outage = error
            raise
        self.outage = None
        if not is_current:
            raise TurnOutdated("what this turn read has changed since it began")
        return found


class Handling:
    """Runs the handler for one message at a time and user."""

    def __init__(self, settings: Settings, sessions: Sessions, host: Host, isolation: Isolation) -> None:
        self._settings = settings
        self._sessions = sessions
        self.host = host
        self.isolation = isolation

    def run(self, turn: TurnRead, holding: Holding, *, is_apart: bool) -> Handled:
        """Return what the message leads to; whatever is the handler's fault is a failure.

        With `is_apart`, the handler runs in a process of its own.
        """
        if turn.session.status == "escalated":
            return Handled({})
        if (ending := self._ending(turn)) is not None:
            return Handled(ending)
        if turn.message.deaths >= DEATHS_PER_ATTEMPT:
            return Handled({}, Failure(error=f"{turn.message.deaths} workers died with this message in flight"))
        memory = TurnMemory(self._sessions, turn, holding.lease)
        try:
            if is_apart:
                return Handled(self.isolation.run(turn, holding, memory))
            return Handled(self.host.run(turn, memory, holding))
        except HandlerFailed as error:
            if memory.outage is not None:
                raise memory.outage from error
            return Handled({}, _failure_of(error))

    def pace_ms(self, turn: TurnRead) -> int:
        """Return the time between turns that the channel's rate limit asks for; 0 without one."""
        channel = self._channel(turn)
        return MINUTE_MS // channel.rate_per_minute if channel and channel.rate_per_minute else 0

    def _ending(self, turn: TurnRead) -> JsonObject | None:
        """Return what a message that ends the session does, or None for any other message."""
        channel = self._channel(turn)
        text = turn.message.text.strip().casefold()
        if channel is None or all(text != word.casefold() for word in channel.end_words):
            return None
        return {"end": "user_request", "replies": [{"text": channel.end_reply}] if channel.end_reply else []}

    def _channel(self, turn: TurnRead) -> Channel | None:
        """Return the message's channel; None when it is configured no more."""
        return self._settings.channels.get(turn.user.channel)


def _failure_of(error: HandlerFailed) -> Failure:
    if isinstance(error, HandlerWaits):
        return Failure(error=str(error), waits=True, asked_s=error.seconds, reason=error.reason)
    return Failure(error=str(error))


def is_suspect(turn: TurnRead) -> bool:
    """Whether the message was in flight at so many deaths that it must run apart."""
    return turn.message.deaths >= SUSPECT_AFTER_DEATHS
