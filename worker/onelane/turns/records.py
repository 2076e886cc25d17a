"""The turn's SQL calls, one lane a call. Each may be repeated word for word: it answers the same."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from threading import Event
from typing import Any
from uuid import UUID

from onelane.config import Settings
from onelane.connection import Row
from onelane.db import Database
from onelane.errors import StoreRefused, StoreUnavailable
from onelane.faults import refusal
from onelane.model import BeginOutcome, Begun, Failure, JsonObject, Lease, Settled, SettleOutcome, TurnRead
from onelane.telemetry.numbers import BEGINS_FENCED, SESSION_CACHE, TURNS

HELD_PAUSE_S = 0.25
HELD_PAUSE_MAX_S = 4.0


class Records:
    """Begin, commit and fail, under the lease's fence."""

    def __init__(self, settings: Settings, database: Database, stopping: Event) -> None:
        """Set `stopping` to hold no commit any more."""
        self.breaker = database.breaker
        self._settings = settings
        self._database = database
        self._stopping = stopping

    def begin(self, lease: Lease, hint: UUID | None, *, is_first: bool) -> Begun:
        """Ask for the user's next turn; the lease's first call counts a takeover.

        Raise StoreUnavailable, or StoreRefused when Postgres refuses something that is not the message's fault.
        """
        answer = self._call(
            "begin_turns",
            {
                "user_id": str(lease.user_id),
                "fence": lease.fence,
                "hint": hint and str(hint),
                "taken_over": is_first and lease.taken_over,
            },
        )
        begun = Begun.model_validate(answer)
        _count_begun(begun, hint_is_malformed=is_first and lease.hint_is_malformed)
        return begun

    def commit(
        self, lease: Lease, turn: TurnRead, effects: JsonObject, cancelled: Event, *, goes_on: bool = False
    ) -> Settled:
        """Commit a turn and, if the lane `goes_on`, begin its next: both or, when that is impossible, the commit alone.

        While Postgres is away, or it is unknown whether that worked, try again: for COMMIT_HOLD_S, as long as the
        lease lives and the process does not stop. Raise StoreRefused for effects that Postgres refuses.
        """
        what: JsonObject = {"effects": effects, "goes_on": goes_on}
        try:
            return self._held(cancelled, lambda: self._settle(lease, turn, what))
        except StoreRefused:
            if not goes_on:
                raise
            what["goes_on"] = False  # it may be the begin that was refused
            return self._held(cancelled, lambda: self._settle(lease, turn, what))

    def fail(self, lease: Lease, turn: TurnRead, failure: Failure, cancelled: Event) -> Settled:
        """Count a failed attempt; after the last one the channel's poison policy decides.

        A failure that waits is no attempt, until its message has waited for as long as it may. A message that
        `is_suspect` runs in a process of its own from now on. It is tried again as a commit is.
        """
        channel = self._settings.channels.get(turn.user.channel)
        later = {
            "laters": turn.message.laters,
            "max_s": self._settings.later_max_s,
            "asked_s": failure.asked_s,
            "reason": failure.reason,
        }
        what: JsonObject = {
            "failure": {
                "error": failure.error,
                "is_suspect": failure.is_suspect,
                "attempts": turn.message.attempts,
                "attempts_max": self._settings.attempts_max,
                "poison": channel.poison if channel else "skip",
                "apology": channel.apology if channel else None,
                **({"later": later} if failure.waits else {}),
            }
        }
        return self._held(cancelled, lambda: self._settle(lease, turn, what))

    def states(self, user_id: UUID, message_ids: list[str]) -> list[Row]:
        """Return id, state (received, processed or dead) and last_error of those of `message_ids` of this user."""
        return self._database.rows(
            """
            SELECT id, 'received' AS state, NULL AS last_error FROM inbox
             WHERE user_id = %(user_id)s AND id = ANY(%(ids)s::uuid[])
            UNION ALL
            SELECT id, state, last_error FROM messages WHERE user_id = %(user_id)s AND id = ANY(%(ids)s::uuid[])
            """,
            {"user_id": user_id, "ids": message_ids},
        )

    def _held(self, cancelled: Event, settle: Callable[[], Settled]) -> Settled:
        """Settle, at growing pauses until it is done."""
        ends, pause_s = time.monotonic() + self._settings.commit_hold_s, HELD_PAUSE_S
        with ExitStack() as hold:
            while True:
                try:
                    settled = settle()
                except StoreUnavailable:
                    if time.monotonic() + pause_s > ends or cancelled.is_set() or self._stopping.wait(pause_s):
                        raise
                    if self.breaker.is_open:
                        hold.enter_context(self.breaker.holding())
                    pause_s = min(HELD_PAUSE_MAX_S, 2 * pause_s)
                else:
                    if settled.outcome is SettleOutcome.COMMITTED:
                        self.breaker.close()
                    return settled

    def _settle(self, lease: Lease, turn: TurnRead, what: JsonObject) -> Settled:
        answer = self._call(
            "settle_turns",
            {
                "user_id": str(lease.user_id),
                "fence": lease.fence,
                "version": turn.version,
                "seqs": [message.seq for message in turn.messages],
                "session_id": str(turn.session.id),
                **what,
            },
        )
        settled = Settled.model_validate(answer)
        TURNS.count(settled.outcome)
        if settled.next is not None:
            _count_begun(settled.next)
        return settled

    def _call(self, function: str, item: JsonObject) -> Any:
        """Call one of the SQL functions that take a list, with a list of one; a held row is waited for a little."""
        [answer] = self._database.ask(function, [item])
        if answer["outcome"] == "skipped":
            [answer] = self._database.ask(function, [item], waits=True)
        if answer["outcome"] == "refused":
            raise refusal(answer["sqlstate"])
        return answer


def _count_begun(begun: Begun, *, hint_is_malformed: bool = False) -> None:
    """Count a refusal, and what the session id known beforehand was worth."""
    if begun.outcome is BeginOutcome.FENCED:
        BEGINS_FENCED.count()
    elif begun.hint is not None:
        SESSION_CACHE.count("malformed" if hint_is_malformed else begun.hint)
