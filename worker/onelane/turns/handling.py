"""Who handles a message: nobody, when a human has the session; a command; a child process for a suspect; the host."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

from onelane.bot.memory import Hold, held
from onelane.channels.senders import Senders, are_short, pieces_of
from onelane.config import Channel, Settings
from onelane.end_words import is_end
from onelane.errors import HandlerFailed, HandlerWaits
from onelane.lanes.holding import Holding
from onelane.model import Failure, JsonObject, TurnRead
from onelane.sessions import Sessions
from onelane.telemetry import tracing
from onelane.turns.bots import Bots
from onelane.turns.files import Fetches
from onelane.turns.handler_threads import LeaseThread
from onelane.turns.hosting import Host
from onelane.turns.isolation import Isolation
from onelane.turns.memory import TurnMemory
from onelane.turns.uploads import Uploads

SUSPECT_AFTER_DEATHS = 2
"""Worker deaths with a message in flight after which its handler runs in a process of its own."""
DEATHS_PER_ATTEMPT = 5
"""Deaths whose cause nobody saw count as one failed attempt when there are this many."""
MINUTE_MS = 60_000


Signs = Callable[[TurnRead], AbstractContextManager[None]]
"""Shows the user that somebody works on a turn's message, until its end."""


class Handled(NamedTuple):
    """A handler's effects, or why it failed."""

    effects: JsonObject
    failure: Failure | None = None


class Handling:
    """Runs the bot for one message at a time and user."""

    def __init__(
        self,
        settings: Settings,
        sessions: Sessions,
        bots: Bots,
        host: Host,
        isolation: Isolation,
        files: Fetches,
        senders: Senders,
        uploads: Uploads,
        signs: Signs = lambda _turn: nullcontext(),
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self.bots = bots
        self.host = host
        self.isolation = isolation
        self._files = files
        self._senders = senders
        self._uploads = uploads
        self._signs = signs

    def memory(self, turn: TurnRead, holding: Holding, hold: Callable[[], AbstractContextManager[Hold]]) -> TurnMemory:
        """Make what the turn reads from; `hold` begins to hold what it cannot keep."""
        channel = self._channel(turn)
        may_be = (
            channel is not None
            and channel.on_busy == "interrupt"
            and turn.superseded < channel.interrupt_max
            and len(turn.messages) < channel.collect_max_messages  # a full batch takes nothing in
            and turn.failure is None  # what is said of a failure is not asked again
        )
        return TurnMemory(self._sessions, turn, holding.lease, self._files, hold, is_interruptible=may_be)

    async def run(
        self, turn: TurnRead, holding: Holding, memory: TurnMemory, thread: LeaseThread, *, is_apart: bool
    ) -> tuple[TurnRead, Handled]:
        """Return what the batch leads to, and the turn with what it has taken in; the handler's fault is a failure.

        With `is_apart`, the handler runs in a process of its own, and `thread` waits for that.
        """
        with tracing.handling(is_apart=is_apart) as span:
            handled = await self._handled(turn, holding, memory, thread, is_apart=is_apart)
            if handled.failure is not None:
                span.fail("later" if handled.failure.waits else "failed")
        return turn.widened(memory.claimed), handled

    async def _handled(
        self, turn: TurnRead, holding: Holding, memory: TurnMemory, thread: LeaseThread, *, is_apart: bool
    ) -> Handled:
        act = self.bots.act_for(turn)
        if turn.session.status == "escalated" or act is None:
            return Handled({})
        if (ending := self._ending(turn)) is not None:
            return Handled(await self._in_pieces(turn, ending, memory, thread))
        if turn.first.deaths >= DEATHS_PER_ATTEMPT and turn.failure is None:
            return Handled({}, Failure(error=f"{turn.first.deaths} workers died with this message in flight"))
        turn = self._with_window(turn)
        try:
            with self._signs(turn):
                if is_apart:
                    effects = await thread.run(partial(self.isolation.run, turn, holding, memory))
                else:
                    with holding.telling(memory.interrupt):
                        effects = await self.host.run(act, turn, memory, holding, thread)
            return Handled(await self._in_pieces(turn.widened(memory.claimed), effects, memory, thread))
        except HandlerFailed as error:
            if memory.is_interrupted:
                return Handled({"interrupted": True})
            if (outage := memory.outage) is not None:
                raise outage from error
            return Handled({}, _failure_of(error))

    def pace_ms(self, turn: TurnRead) -> int:
        """Return the time between turns that the channel's rate limit asks for; 0 without one."""
        channel = self._channel(turn)
        return MINUTE_MS // channel.rate_per_minute if channel and channel.rate_per_minute else 0

    def _with_window(self, turn: TurnRead) -> TurnRead:
        """Say until when the user can be answered."""
        user = turn.user
        until = self._senders.reply_until(user.channel, (user.sender,), user.last_written_at)
        return turn.model_copy(update={"reply_until": until})

    async def _in_pieces(
        self, turn: TurnRead, effects: JsonObject, memory: TurnMemory, thread: LeaseThread
    ) -> JsonObject:
        """Make of replies what is stored: a row for each message that they need; raise BadResult for too many.

        What they upload is kept, through an outage if it must be: the handler has done its work.
        """
        if not (said := pieces_of(effects.get("replies", []))):
            return effects
        take_apart = partial(self._senders.rows, turn.user.channel, said)
        rows = take_apart() if are_short(said) else await thread.run(take_apart)
        uploads = effects.pop("uploads", {})
        if any(one.file for reply in said for one in reply.media):
            with memory.keeping() as hold:
                await held(partial(thread.run, partial(self._uploads.keep, turn, rows, uploads)), hold)
                hold.done()
        return {**effects, "replies": rows}

    def _ending(self, turn: TurnRead) -> JsonObject | None:
        """Return what a message that ends the session does, or None for any other message."""
        channel = self._channel(turn)
        if channel is None or not is_end(turn.message.kind, turn.message.text, channel):
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
    return turn.first.deaths >= SUSPECT_AFTER_DEATHS
