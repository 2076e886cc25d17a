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
REFUSED = "Postgres refuses what the handler returned or saved"


class Ledger:
    """The turn's three writes and reads, under the lease's fence."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    def begin(self, holding: Holding, hint: UUID | None, *, taken_over: bool) -> Begun:
        """Ask for the user's lowest waiting message and its session."""
        lease = holding.lease
        row = self._call("SELECT * FROM begin_turn(%s, %s, %s, %s)", lease.user_id, lease.fence, hint, taken_over)
        begun = Begun(BeginOutcome(row[0]), *row[1:])
        _count(begun, hint_is_malformed=lease.hint_is_malformed and holding.turn is None)
        return begun

    def commit(self, holding: Holding, begun: Begun, effects: JsonObject) -> Settled:
        """Commit a turn; while it is unknown whether that worked, try again as long as the lease lives."""
        for tries_left in reversed(range(COMMIT_TRIES_MAX)):
            try:
                return self._commit(holding, begun, effects)
            except StoreUnavailable:
                if not tries_left or holding.cancelled.wait(COMMIT_PAUSE_S):
                    raise
            except psycopg.DataError:
                return self.fail(holding, begun, REFUSED)
        raise AssertionError("the last try returns or raises")

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
        lease = holding.lease
        row = self._call(
            "SELECT * FROM commit_turn(%s, %s, %s, %s, %s)",
            lease.user_id,
            lease.fence,
            begun.message_id,
            begun.session_id,
            Jsonb(effects),
        )
        TURNS.count(row.outcome)
        return Settled(CommitOutcome(row.outcome), row.more, row.session_ms)

    def _call(self, query: str, *params: object) -> Row:
        row = self._database.row(query, params)
        assert row is not None  # noqa: S101 - these functions always answer one row
        return row


def _count(begun: Begun, *, hint_is_malformed: bool) -> None:
    """Count a refusal, and what the session id known beforehand was worth."""
    if begun.outcome is BeginOutcome.FENCED:
        BEGINS_FENCED.count()
    elif begun.hint is not None:
        SESSION_CACHE.count("malformed" if hint_is_malformed else begun.hint)
