"""What Postgres is asked and told about a turn. Every call may be repeated: the second commit answers `already`."""

from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from worker.config import Settings
from worker.counters import BEGINS_FENCED, SESSION_CACHE, TURNS
from worker.db import Database, Row
from worker.errors import StoreUnavailable
from worker.lock import Holding
from worker.model import BeginOutcome, Begun, CommitOutcome, JsonObject, Settled

COMMIT_TRIES_MAX = 3
COMMIT_PAUSE_S = 0.5
COMMIT = "SELECT * FROM commit_turn(%s, %s, %s, %s, %s)"
COMMIT_AND_BEGIN = """
SELECT c.outcome AS committed, c.more, c.session_ms, b.*
  FROM commit_turn(%s, %s, %s, %s, %s) AS c,
       begin_turn(
           CASE WHEN c.more AND c.outcome <> 'fenced' THEN %s::uuid END,
           %s,
           CASE WHEN c.session_ms > 0 THEN %s::uuid END
       ) AS b
"""
"""Without a user begin_turn finds nothing to do: what it says then is not read."""
REFUSED = "Postgres refuses what the handler returned or saved"


class Ledger:
    """The turn's three writes and reads, under the lease's fence."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    def begin(self, holding: Holding, hint: UUID | None, *, taken_over: bool = False) -> Begun:
        """Ask for the user's lowest waiting message and its session."""
        lease = holding.lease
        row = self._call("SELECT * FROM begin_turn(%s, %s, %s, %s)", lease.user_id, lease.fence, hint, taken_over)
        return _begun(row, hint_is_malformed=lease.hint_is_malformed and holding.turn is None)

    def commit(self, holding: Holding, begun: Begun, effects: JsonObject, *, goes_on: bool = False) -> Settled:
        """Commit a turn and, if the lane `goes_on`, begin its next: both or, when that is impossible, the commit alone.

        While it is unknown whether that worked, try again as long as the lease lives.
        """
        commit = self._commit_and_begin if goes_on else self._commit
        tries_left = COMMIT_TRIES_MAX
        while True:
            try:
                return commit(holding, begun, effects)
            except StoreUnavailable:
                tries_left -= 1
                if not tries_left or holding.cancelled.wait(COMMIT_PAUSE_S):
                    raise
            except psycopg.Error as error:
                if commit != self._commit:
                    commit = self._commit  # it may be the begin that failed
                elif isinstance(error, psycopg.DataError):
                    return self.fail(holding, begun, REFUSED)
                else:
                    raise

    def fail(self, holding: Holding, begun: Begun, failure: str) -> Settled:
        """Note a failed attempt; after the last one the channel's poison policy decides."""
        lease, channel = holding.lease, self._settings.channels.get(begun.channel)
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
        """Return id, state and last_error of those of the ids that are messages of this user."""
        return self._database.rows(
            "SELECT id, state, last_error FROM messages WHERE user_id = %s AND id = ANY(%s::uuid[])",
            (user_id, message_ids),
        )

    def _commit(self, holding: Holding, begun: Begun, effects: JsonObject) -> Settled:
        row = self._call(COMMIT, *_writes(holding, begun, effects))
        TURNS.count(row.outcome)
        return Settled(CommitOutcome(row.outcome), row.more, row.session_ms)

    def _commit_and_begin(self, holding: Holding, begun: Begun, effects: JsonObject) -> Settled:
        lease = holding.lease
        row = self._call(
            COMMIT_AND_BEGIN, *_writes(holding, begun, effects), lease.user_id, lease.fence, begun.session_id
        )
        TURNS.count(row.committed)
        outcome = CommitOutcome(row.committed)
        following = _begun(row[3:]) if row.more and outcome is not CommitOutcome.FENCED else None
        return Settled(outcome, row.more, row.session_ms, following=following)

    def _call(self, query: str, *params: object) -> Row:
        row = self._database.row(query, params)
        assert row is not None  # noqa: S101 - these functions always answer one row
        return row


def _writes(holding: Holding, begun: Begun, effects: JsonObject) -> tuple[object, ...]:
    """List commit_turn's arguments."""
    return holding.lease.user_id, holding.lease.fence, begun.message_id, begun.session_id, Jsonb(effects)


def _begun(columns: Row, *, hint_is_malformed: bool = False) -> Begun:
    """Read begin_turn's answer; count a refusal, and what the session id known beforehand was worth."""
    begun = Begun(BeginOutcome(columns[0]), *columns[1:])
    if begun.outcome is BeginOutcome.FENCED:
        BEGINS_FENCED.count()
    elif begun.hint is not None:
        SESSION_CACHE.count("malformed" if hint_is_malformed else begun.hint)
    return begun
