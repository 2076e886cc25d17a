"""The turn's SQL calls. Each may be repeated: the second commit answers `already`."""

from threading import Event
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from onelane.config import Settings
from onelane.db import Database, Row
from onelane.errors import StoreUnavailable
from onelane.model import BeginOutcome, Begun, CommitOutcome, JsonObject, Lease, Settled
from onelane.telemetry.numbers import BEGINS_FENCED, SESSION_CACHE, TURNS

COMMIT_TRIES_MAX = 3
COMMIT_PAUSE_S = 0.5
COMMIT = "SELECT outcome AS committed, more, session_ms FROM commit_turn(%s, %s, %s, %s, %s)"
COMMIT_AND_BEGIN = """
SELECT c.outcome AS committed, c.more, c.session_ms, b.*
  FROM commit_turn(%s, %s, %s, %s, %s) AS c,
       begin_turn(
           CASE WHEN c.more AND c.outcome <> 'fenced' THEN %s::uuid END,
           %s,
           CASE WHEN c.session_ms > 0 THEN %s::uuid END
       ) AS b
"""
"""Without a user begin_turn finds nothing to do: what it answers then is not read."""
REFUSED = "Postgres refuses what the handler returned or saved"


class Records:
    """Begin, commit and fail, under the lease's fence."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    def begin(self, lease: Lease, hint: UUID | None, *, is_first: bool) -> Begun:
        """Ask for the user's lowest waiting message and its session; the lease's first call counts a takeover."""
        taken_over = is_first and lease.taken_over
        row = self._call("SELECT * FROM begin_turn(%s, %s, %s, %s)", lease.user_id, lease.fence, hint, taken_over)
        return _begun(lease, row._asdict(), hint_is_malformed=is_first and lease.hint_is_malformed)

    def commit(
        self, lease: Lease, begun: Begun, effects: JsonObject, cancelled: Event, *, goes_on: bool = False
    ) -> Settled:
        """Commit a turn and, if the lane `goes_on`, begin its next: both or, when that is impossible, the commit alone.

        While it is unknown whether that worked, try again as long as the lease lives.
        """
        commit = self._commit_and_begin if goes_on else self._commit
        tries_left = COMMIT_TRIES_MAX
        while True:
            try:
                return commit(lease, begun, effects)
            except StoreUnavailable:
                tries_left -= 1
                if not tries_left or cancelled.wait(COMMIT_PAUSE_S):
                    raise
            except psycopg.Error as error:
                if commit != self._commit:
                    commit = self._commit  # it may be the begin that failed
                elif isinstance(error, psycopg.DataError):
                    return self.fail(lease, begun, REFUSED)
                else:
                    raise

    def fail(self, lease: Lease, begun: Begun, failure: str) -> Settled:
        """Note a failed attempt; after the last one the channel's poison policy decides."""
        channel = self._settings.channels.get(begun.channel)
        row = self._call(
            "SELECT * FROM fail_turn(%s, %s, %s, %s, %s, %s, %s, %s)",
            lease.user_id,
            lease.fence,
            begun.message_id,
            begun.session_id,
            failure,
            self._settings.attempts_max,
            channel.poison if channel else "skip",
            channel.apology if channel else None,
        )
        TURNS.count(row.outcome)
        return Settled(CommitOutcome(row.outcome), row.more, row.session_ms, row.attempts)

    def states(self, user_id: UUID, message_ids: list[str]) -> list[Row]:
        """Return id, state and last_error of those of `message_ids` that belong to this user."""
        return self._database.rows(
            "SELECT id, state, last_error FROM messages WHERE user_id = %s AND id = ANY(%s::uuid[])",
            (user_id, message_ids),
        )

    def _commit(self, lease: Lease, begun: Begun, effects: JsonObject) -> Settled:
        row = self._call(COMMIT, *_writes(lease, begun, effects))
        return _settled(row)

    def _commit_and_begin(self, lease: Lease, begun: Begun, effects: JsonObject) -> Settled:
        begins = lease.user_id, lease.fence, begun.session_id
        row = self._call(COMMIT_AND_BEGIN, *_writes(lease, begun, effects), *begins)
        columns = row._asdict()
        for name in ("committed", "more", "session_ms"):
            del columns[name]
        has_begun = row.more and row.committed != CommitOutcome.FENCED
        return _settled(row, next_turn=_begun(lease, columns) if has_begun else None)

    def _call(self, query: str, *params: object) -> Row:
        row = self._database.row(query, params)
        assert row is not None  # noqa: S101 - these functions always answer one row
        return row


def _writes(lease: Lease, begun: Begun, effects: JsonObject) -> tuple[object, ...]:
    """List commit_turn's arguments."""
    return lease.user_id, lease.fence, begun.message_id, begun.session_id, Jsonb(effects)


def _settled(row: Row, next_turn: Begun | None = None) -> Settled:
    TURNS.count(row.committed)
    return Settled(CommitOutcome(row.committed), row.more, row.session_ms, next_turn=next_turn)


def _begun(lease: Lease, columns: dict[str, Any], *, hint_is_malformed: bool = False) -> Begun:
    """Read begin_turn's answer; count a refusal, and what the session id known beforehand was worth."""
    begun = Begun(user_id=lease.user_id, **{**columns, "outcome": BeginOutcome(columns["outcome"])})
    if begun.outcome is BeginOutcome.FENCED:
        BEGINS_FENCED.count()
    elif begun.hint is not None:
        SESSION_CACHE.count("malformed" if hint_is_malformed else begun.hint)
    return begun
