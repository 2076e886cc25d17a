"""The turn's SQL calls, many lanes' in one. Each may be repeated word for word: it answers the same."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event
from uuid import UUID

from onelane import forks
from onelane.bot.memory import held
from onelane.config import Settings
from onelane.errors import StoreRefused, StoreUnavailable
from onelane.gathering import Gatherer
from onelane.model import Failure, JsonObject, Lease, TurnRead
from onelane.outcomes import BeginOutcome, Begun, Settled, SettleOutcome
from onelane.postgres.connection import Row
from onelane.postgres.db import Database
from onelane.telemetry import tracing
from onelane.telemetry.log import event
from onelane.telemetry.numbers import BEGINS_FENCED, SESSION_CACHE, TAKEOVERS, TURNS
from onelane.turns.answers import Asking, answered, done
from onelane.turns.holds import OutageHold
from onelane.turns.idle import OF_NOBODY

READERS_MAX = 2
STATES = f"""
SELECT id, 'received' AS state, NULL AS last_error FROM inbox
 WHERE user_id = %(user_id)s AND id = ANY(%(ids)s::uuid[])
UNION ALL
SELECT id, state, last_error FROM messages WHERE user_id = %(user_id)s AND id = ANY(%(ids)s::uuid[])
UNION ALL {OF_NOBODY}"""  # noqa: S608 - a constant of ours


class Records:
    """Begin, commit and fail, under the lease's fence."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        stopping: Event,
        apologies: Mapping[str, Sequence[JsonObject]] | None = None,
    ) -> None:
        """Take each channel's apology in pieces. Set `stopping` to hold no commit any more."""
        self.breaker = database.breaker
        self._settings = settings
        self._database = database
        self._stopping = stopping
        self._apologies = apologies or {}
        # Begin and settle share the pool: a list that waits for a connection would wait for long.
        half = settings.db_pool_max // 2
        self._begins = Gatherer(database.asks("begin_turns"), at_once=half)
        self._beginning = Asking(self._begins)
        self._settling = Asking(Gatherer(database.asks("settle_turns"), at_once=half))
        self._first: dict[str, Future[JsonObject]] = {}
        """By token, what was asked for ahead; single operations on it are atomic."""
        self._readers = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="states")

    def begin_ahead(self, leases: Sequence[Lease]) -> None:
        """Ask for the first turns of new leases, from any thread: on its way before the lanes' shifts have begun."""
        items = [_begin(lease, lease.session_hint, is_first=True) for lease in leases]
        asked = self._begins.submit_all([(item, item["user_id"]) for item in items])
        self._first.update((lease.token, first) for lease, first in zip(leases, asked, strict=True))

    async def begin(self, lease: Lease, hint: UUID | None, *, is_first: bool) -> Begun:
        """Ask for the user's next turn; the lease's first call counts a takeover.

        Raise StoreUnavailable, or StoreRefused when Postgres refuses something that is not the message's fault.
        """
        began_ns = time.time_ns()
        asked = self._first.pop(lease.token, None) if is_first else None
        item = _begin(lease, hint, is_first=is_first)
        answer = await (answered(asked) if asked else self._beginning.ask(item, item["user_id"]))
        begun = Begun.model_validate(done(answer))
        if is_first and lease.taken_over:
            TAKEOVERS.count()
            event("lane_taken_over", user_id=lease.user_id, fence=lease.fence)
        _count_begun(begun, hint_is_malformed=is_first and lease.hint_is_malformed)
        if begun.turn is not None:
            tracing.received(begun.turn, began_ns)
        return begun

    async def commit(
        self, lease: Lease, turn: TurnRead, effects: JsonObject, cancelled: Event, *, goes_on: bool = False
    ) -> Settled:
        """Commit a turn and, if the lane `goes_on`, begin its next: both or, when that is impossible, the commit alone.

        While Postgres is away, or it is unknown whether that worked, try again: for COMMIT_HOLD_S, as long as the
        lease lives and the process does not stop. Raise StoreRefused for effects that Postgres refuses.
        """
        what: JsonObject = {"effects": effects, "goes_on": goes_on, **self._interruptible(turn, effects)}
        try:
            return await self._held(cancelled, lease, turn, what)
        except StoreRefused:
            if not goes_on:
                raise
            what["goes_on"] = False  # it may be the begin that was refused
            return await self._held(cancelled, lease, turn, what)

    async def fail(
        self,
        lease: Lease,
        turn: TurnRead,
        failure: Failure,
        cancelled: Event,
        effects: JsonObject | None = None,
        *,
        asks: bool = False,
    ) -> Settled:
        """Count a failed attempt; after the last one the channel's poison policy decides, or the bot's own `effects`.

        With `asks`, the last one is not counted yet: it is handed back, for the bot to say something to it.

        A failure that waits is no attempt, until its message has waited for as long as it may. A message that
        `is_suspect` runs in a process of its own from now on. It is tried again as a commit is.
        """
        counted = {**self._counted(turn, failure), "asks": asks}
        said = {} if effects is None else {"effects": effects}
        try:
            settled = await self._held(cancelled, lease, turn, {"failure": {**counted, **said}})
        except StoreRefused:
            if not said:
                raise
            settled = await self._held(cancelled, lease, turn, {"failure": counted})
        if settled.outcome is SettleOutcome.DYING:
            return settled.model_copy(update={"failure": failure})
        about = {"failure": failure.error, **turn.names(lease.fence)}
        if settled.later is not None:
            event("turn_postponed", laters=settled.later.laters, **about)
        else:
            event("turn_failed", outcome=settled.outcome, attempts=settled.attempts, **about)
        return settled

    def hold(self, cancelled: Event) -> OutageHold:
        """Begin to hold what Postgres cannot take: COMMIT_HOLD_S, while the lease lives and the process does not stop.

        A handler's forked child holds nothing: it has no connection.
        """

        def is_over() -> bool:
            return cancelled.is_set() or self._stopping.is_set() or forks.is_child()

        return OutageHold(self.breaker, self._settings.commit_hold_s, is_over)

    async def states(self, user_id: UUID, ids: list[str]) -> list[Row]:
        """Return id, state (received, processed or dead) and last_error of those of `ids` of this user."""
        asked = {"user_id": user_id, "ids": ids}
        return await answered(self._readers.submit(self._database.rows, STATES, asked))

    def _counted(self, turn: TurnRead, failure: Failure) -> JsonObject:
        channel = self._settings.channels.get(turn.user.channel)
        later = {
            "laters": turn.first.laters,
            "max_s": self._settings.later_max_s,
            "asked_s": failure.asked_s,
            "reason": failure.reason,
        }
        return {
            "error": failure.error,
            "is_suspect": failure.is_suspect,
            "attempts": turn.first.attempts,
            "attempts_max": self._settings.attempts_max,
            "poison": channel.poison if channel else "skip",
            "apologies": self._apologies.get(turn.user.channel, []),
            **({"later": later} if failure.waits else {}),
        }

    def _interruptible(self, turn: TurnRead, effects: JsonObject) -> JsonObject:
        """Say that newer messages throw the turn away, where they do and it has not shielded itself."""
        channel = self._settings.channels.get(turn.user.channel)
        is_cancelled = effects.pop("interrupted", False)
        if effects.pop("shielded", False) or channel is None or channel.on_busy != "interrupt":
            return {}
        return {
            "interrupt": {"superseded": turn.superseded, "most": channel.interrupt_max, "is_cancelled": is_cancelled}
        }

    async def _held(self, cancelled: Event, lease: Lease, turn: TurnRead, what: JsonObject) -> Settled:
        """Settle, at growing pauses until it is done."""
        try:
            settled = await self._settle(lease, turn, what)
        except StoreUnavailable as error:
            with self.hold(cancelled) as hold:
                settled = await held(partial(self._settle, lease, turn, what), hold, error)
        if settled.outcome is SettleOutcome.COMMITTED:
            self.breaker.close()
        return settled

    async def _settle(self, lease: Lease, turn: TurnRead, what: JsonObject) -> Settled:
        item: JsonObject = {
            "user_id": str(lease.user_id),
            "fence": lease.fence,
            "token": lease.token,
            "version": turn.version,
            "seqs": [message.seq for message in turn.messages],
            "session_id": str(turn.session.id),
            **tracing.traceparent(),
            **what,
        }
        with tracing.settling(turn) as span:
            settled = Settled.model_validate(done(await self._settling.ask(item, item["user_id"])))
            span.note({"onelane.outcome": settled.outcome})
        if settled.outcome is not SettleOutcome.DYING:  # that is no end: the bot is asked for its word
            TURNS.count(settled.outcome)
        if settled.next is not None:
            _count_begun(settled.next)
        return settled


def _begin(lease: Lease, hint: UUID | None, *, is_first: bool) -> JsonObject:
    return {
        "user_id": str(lease.user_id),
        "fence": lease.fence,
        "hint": hint and str(hint),
        "taken_over": is_first and lease.taken_over,
        **({"token": lease.token, "taken_from": lease.taken_from} if is_first and lease.taken_over else {}),
    }


def _count_begun(begun: Begun, *, hint_is_malformed: bool = False) -> None:
    """Count a refusal, and what the session id known beforehand was worth."""
    if begun.outcome is BeginOutcome.FENCED:
        BEGINS_FENCED.count()
    elif begun.hint is not None:
        SESSION_CACHE.count("malformed" if hint_is_malformed else begun.hint)
