"""Acts of an operator on a user, on dead messages and on sessions, for commands and pages.

Postgres first, since it is the record, and in the same transaction the audit, with whom the act is `by`; then Redis, so
that it takes effect at once. When Redis is away the act counts all the same: its result is marked, and the workers
update Redis when it is back.
"""

from collections.abc import Callable, Iterable
from datetime import timedelta
from uuid import UUID

from onelane.errors import LanesUnavailable
from onelane.lanes.lanes import Lanes
from onelane.model import Value
from onelane.operations import merging
from onelane.operations.audit import Entry
from onelane.operations.dead import PAGE_MAX, DeadMessage, dead_messages
from onelane.operations.merging import Merged
from onelane.postgres.db import Database
from onelane.sessions import Escalated, Sessions
from onelane.telemetry.log import event

MESSAGE = """
SELECT user_id, seq, processed_at AS died_at, dropped_at >= processed_at AS is_dropped
  FROM messages WHERE id = %s AND state = 'dead'
"""
WAITS_AGAIN = """
SELECT i.user_id FROM users u JOIN inbox i ON i.user_id = coalesce(u.merged_into, u.id)
 WHERE u.id = %s AND i.id = %s
"""
"""Whose a redriven message is: another's, after a merge. Somebody has redriven it: we, if an answer was lost."""


class Act(Value):
    """What became of an act."""

    did: bool
    """False: there was nothing to do."""
    redis: bool = True
    """False: Redis was away; the workers update it later."""


class Redriven(Value):
    """The messages of one user that wait again."""

    user_id: UUID
    seqs: tuple[int, ...]
    redis: bool = True


class Acts:
    """The acts, each safe to repeat when its answer was lost."""

    def __init__(self, database: Database, lanes: Lanes, sessions: Sessions) -> None:
        self._database = database
        self._lanes = lanes
        self._sessions = sessions

    def pause(self, user_id: UUID, *, by: str) -> Act:
        """Keep a user's messages waiting; a turn that runs still commits."""
        user = self._database.row("SELECT pauses, paused_at FROM users WHERE id = %s", (user_id,))
        if user is None:
            return Act(did=False)
        if user.paused_at is None:
            entry = self._entry(by, "user_paused", user_id)
            row = entry.row("SELECT pause_user(%s, 'operator', %s) AS did", (user_id, user.pauses))
            if row is None or not row.did:
                return Act(did=False)
            _record("user_paused", user_id=user_id)
        return Act(did=user.paused_at is None, redis=in_redis(lambda: self._lanes.pause(user_id)))

    def resume(self, user_id: UUID, *, by: str) -> Act:
        """Let a paused user's messages run again."""
        user = self._database.row("SELECT paused_at FROM users WHERE id = %s AND paused_at IS NOT NULL", (user_id,))
        entry = self._entry(by, "user_resumed", user_id)
        row = user and entry.row("SELECT resume_user(%s, %s) AS did", (user_id, user.paused_at))
        did = row is not None and row.did
        if did:
            _record("user_resumed", user_id=user_id)
        # Also after a lost answer, or when only Redis still calls the user paused.
        return Act(did=did, redis=in_redis(lambda: self._unpause(user_id)))

    def redrive(self, user_id: UUID | None = None, *, by: str) -> list[Redriven]:
        """Let all dead messages wait again, of one user or of all, in their order; each once."""
        seqs: dict[UUID, list[int]] = {}
        reached: dict[UUID, bool] = {}
        for message in self._every_dead(user_id):
            act = self.retry(message.message_id, by=by)
            if act.did:
                seqs.setdefault(message.user_id, []).append(message.seq)
                reached[message.user_id] = reached.get(message.user_id, True) and act.redis
        return [Redriven(user_id=user, seqs=tuple(of_user), redis=reached[user]) for user, of_user in seqs.items()]

    def retry(self, message_id: UUID, *, by: str) -> Act:
        """Let a dead message wait again, with its number and its session; it runs next."""
        message = self._database.row(MESSAGE, (message_id,))
        if message is None or message.is_dropped:
            return Act(did=False)
        entry = self._entry(by, "message_redriven", message.user_id, message_id=message_id)
        entry.row("SELECT redrive_message(%s, %s) AS did", (message_id, message.died_at))
        waiting = self._database.row(WAITS_AGAIN, (message.user_id, message_id))
        if waiting is None:
            return Act(did=False)
        _record("message_redriven", user_id=waiting.user_id, message_id=message_id)
        return Act(did=True, redis=in_redis(lambda: self._enqueue(message.user_id, waiting.user_id, message_id)))

    def drop(self, message_id: UUID, *, by: str) -> Act:
        """Forget a dead message: it stays dead, and neither we nor RQ's tools list it any more."""
        message = self._database.row(MESSAGE, (message_id,))
        if message is None or message.is_dropped:
            return Act(did=False)
        entry = self._entry(by, "message_dropped", message.user_id, message_id=message_id)
        row = entry.row("SELECT drop_message(%s, %s) AS did", (message_id, message.died_at))
        if row is None or row.did is None:
            return Act(did=False)
        _record("message_dropped", user_id=row.did, message_id=message_id)
        return Act(did=True, redis=in_redis(lambda: self._lanes.discard(row.did, message_id)))

    def end_session(self, user_id: UUID, session_id: UUID | None = None, *, by: str) -> str | None:
        """End the user's open session; return the reason, `noted` while messages wait, or None if none is open.

        Here and below: with a `session_id` it is that session or none, also when another has opened since.
        """
        entry = self._entry(by, "session_end_requested", user_id)
        did = self._sessions.end(user_id, session_id, ask=entry.row)
        if did is not None:
            _record("session_end_requested", user_id=user_id, outcome=did)
        return did

    def escalate(self, user_id: UUID, session_id: UUID | None = None, *, by: str) -> Escalated | None:
        """Hand the user's open session to a human; return it, or None when none is open."""
        entry = self._entry(by, "session_escalated", user_id)
        escalated = self._sessions.escalate(user_id, session_id, ask=entry.row)
        if escalated is not None:
            _record("session_escalated", user_id=user_id, session_id=escalated)
        return escalated

    def hand_back(self, user_id: UUID, session_id: UUID | None = None, *, by: str) -> Escalated | None:
        """Give an escalated session back to the bot; return it, or None when none was escalated."""
        entry = self._entry(by, "session_handed_back", user_id)
        handed_back = self._sessions.hand_back(user_id, session_id, ask=entry.row)
        if handed_back is not None:
            _record("session_handed_back", user_id=user_id, session_id=handed_back)
        return handed_back

    def merge(self, winner: UUID, loser: UUID, *, by: str) -> Merged | None:
        """Make one user of two; return None when they cannot be merged. Raise LaneBusy when a turn does not end."""
        entry = self._entry(by, "users_merged", winner, loser_id=loser)
        merged = merging.merge(self._database, self._lanes, winner, loser, entry)
        if merged is not None and merged.did:
            _record("users_merged", user_id=winner, loser_id=loser, moved=merged.moved)
        return merged

    def confirm(self, user_id: UUID, *, by: str) -> Act:
        """Confirm that a user is the person whom we knew before the number might have got another owner."""
        user = self._database.row("SELECT owner_changed_at FROM users WHERE id = %s", (user_id,))
        if user is None or user.owner_changed_at is None:
            return Act(did=False)
        entry = self._entry(by, "owner_confirmed", user_id)
        entry.row("SELECT confirm_user(%s, %s) AS did", (user_id, user.owner_changed_at))
        _record("owner_confirmed", user_id=user_id)
        return Act(did=True)

    def opt_in(self, user_id: UUID, *, by: str) -> Act:
        """Lift that a user wants no more messages."""
        user = self._database.row("SELECT opted_out_at FROM users WHERE id = %s", (user_id,))
        if user is None or user.opted_out_at is None:
            return Act(did=False)
        entry = self._entry(by, "user_opted_in", user_id)
        entry.row("SELECT opt_in_user(%s, %s) AS did", (user_id, user.opted_out_at))
        _record("user_opted_in", user_id=user_id)
        return Act(did=True)

    def fit_time(self, user_id: UUID, *, by: str) -> timedelta | None:
        """Bring a user's times back to the clock; return by how much they were ahead, or None when they were not."""
        ahead = self._sessions.fit_time(user_id, ask=self._entry(by, "time_fitted", user_id).row)
        if ahead is not None:
            _record("time_fitted", user_id=user_id, ahead_s=ahead.total_seconds())
        return ahead

    def _entry(self, by: str, act: str, user_id: UUID, **detail: object) -> Entry:
        return Entry(self._database, by, act, user_id, detail)

    def _every_dead(self, user_id: UUID | None) -> Iterable[DeadMessage]:
        """Walk on by user and number, so that one that dies again meanwhile is not met twice."""
        page = dead_messages(self._database, user_id=user_id, most=PAGE_MAX)
        while page:
            yield from page
            page = dead_messages(self._database, user_id=user_id, after=page[-1].place, most=PAGE_MAX)

    def _enqueue(self, died_as: UUID, user_id: UUID, message_id: UUID) -> None:
        if died_as != user_id:  # merged since
            self._lanes.discard(died_as, message_id)
        self._lanes.enqueue(user_id, message_id)
        self._lanes.make_due(user_id)

    def _unpause(self, user_id: UUID) -> None:
        row = self._database.row("SELECT waiting FROM users WHERE id = %s", (user_id,))
        # A lane without work would only wake a worker for nothing.
        if (row is not None and row.waiting) or self._lanes.scores([user_id]) != [None]:
            self._lanes.make_due(user_id, unpause=True)


def _record(act: str, **who: object) -> None:
    """Record an act of this module that took effect, as a log event named `act`."""
    event(act, **who)


def in_redis(call: Callable[[], object]) -> bool:
    """Call; return False when Redis is away."""
    try:
        call()
    except LanesUnavailable as error:
        event("lanes_not_updated", error=str(error))
        return False
    return True
