"""What an operator does about replies, and about a channel that sends nothing: see `acts`."""

from typing import Final, Literal
from uuid import UUID

from onelane.failures import Failures
from onelane.lanes.lanes import Lanes
from onelane.operations.acts import Act, in_redis
from onelane.operations.audit import Entry
from onelane.postgres.connection import Row
from onelane.postgres.db import Database
from onelane.telemetry.log import event
from onelane.telemetry.numbers import REPLIES

REPLY: Final = """
SELECT m.user_id, m.xmin::text AS version, m.state, o.id IS NOT NULL AS is_waiting
  FROM messages m LEFT JOIN outbox o ON o.id = m.id
 WHERE m.id = %s AND m.direction = 'out'
"""
"""A reply as it is now; `version` names that: an act that is asked again does nothing to what has changed since."""
ON_CHANNEL: Final = """
SELECT DISTINCT user_id FROM outbox WHERE channel = %(channel)s AND user_id > %(after)s ORDER BY user_id LIMIT %(page)s
"""
PAGE: Final = 1_000
HELD: Final = """
SELECT coalesce(broken_at, not_before) AS held_at FROM channel_holds
 WHERE channel = %s AND (broken_at IS NOT NULL OR not_before > clock_timestamp())
"""


class ReplyActs:
    """The acts, each safe to repeat when its answer was lost."""

    def __init__(self, database: Database, out_lanes: Lanes, failures: Failures) -> None:
        self._database = database
        self._out_lanes = out_lanes
        self._failures = failures

    def resend(self, reply_id: UUID, *, by: str) -> Act:
        """Send a reply that failed, was dropped or withheld, or whose fate nobody knows; it may arrive twice then.

        It keeps its key, and its place: before all that was said after it.
        """
        reply = self._reply(reply_id)
        if reply is None or reply.is_waiting:
            return Act(did=False)
        entry = self._entry(by, "reply_resent", reply.user_id, reply_id)
        entry.row("SELECT resend_reply(%s, %s) AS did", (reply_id, reply.version))
        now = self._reply(reply_id)
        if now is None or not now.is_waiting:
            return Act(did=False)
        event("reply_resent", user_id=reply.user_id, message_id=reply_id)
        return Act(did=True, redis=in_redis(lambda: self._enqueue(reply.user_id, reply_id)))

    def settle(self, reply_id: UUID, state: Literal["sent", "failed"], *, by: str) -> Act:
        """Say what became of a reply of whose fate nobody knows."""
        user_id = self._ended(reply_id, state, "SELECT settle_reply(%s, %s, %s) AS did", state, by=by)
        if user_id is None:
            return Act(did=False)
        event("reply_settled", user_id=user_id, message_id=reply_id, outcome=state)
        self._failures.tell()
        return Act(did=True, redis=in_redis(lambda: self._discard(user_id, reply_id)))

    def drop(self, reply_id: UUID, *, by: str) -> Act:
        """Give up a reply that waits, or of whose fate nobody knows. One that is being sent is left alone."""
        user_id = self._ended(reply_id, "dropped", "SELECT drop_reply(%s, %s) AS did", by=by)
        if user_id is None:
            return Act(did=False)
        event("reply_dropped", user_id=user_id, message_id=reply_id)
        return Act(did=True, redis=in_redis(lambda: self._discard(user_id, reply_id)))

    def open_channel(self, channel: str, *, by: str) -> Act:
        """Let a channel send again that its provider refused or asked to wait; all lanes that wait for it are due."""
        hold = self._database.row(HELD, (channel,))
        if hold is not None:
            entry = Entry(self._database, by, "channel_opened", channel)
            entry.row("SELECT open_channel(%s, %s) AS did", (channel, hold.held_at))
            event("channel_opened", channel=channel)
        # Also when an earlier call, which opened it, was cut off.
        return Act(did=hold is not None, redis=in_redis(lambda: self._make_due(channel)))

    def _ended(self, reply_id: UUID, state: str, query: str, *how: str, by: str) -> UUID | None:
        """Bring a reply to its end, unless it has come to it before; return its user when it has now."""
        reply = self._reply(reply_id)
        if reply is None or reply.state == state:
            return None
        act = "reply_dropped" if state == "dropped" else "reply_settled"
        self._entry(by, act, reply.user_id, reply_id, outcome=state).row(query, (reply_id, *how, reply.version))
        now = self._reply(reply_id)
        if now is None or now.state != state:
            return None
        if reply.is_waiting:
            REPLIES.count(state)
        user_id: UUID = now.user_id
        return user_id

    def _entry(self, by: str, act: str, user_id: UUID, reply_id: UUID, **detail: object) -> Entry:
        return Entry(self._database, by, act, user_id, {"message_id": reply_id, **detail})

    def _reply(self, reply_id: UUID) -> Row | None:
        return self._database.row(REPLY, (reply_id,))

    def _enqueue(self, user_id: UUID, reply_id: UUID) -> None:
        self._out_lanes.enqueue(user_id, reply_id)
        self._out_lanes.make_due(user_id)

    def _make_due(self, channel: str) -> None:
        """Let all lanes go on that wait for a channel."""
        after = UUID(int=0)
        while rows := self._database.rows(ON_CHANNEL, {"channel": channel, "after": after, "page": PAGE}):
            users = [row.user_id for row in rows]
            self._out_lanes.make_all_due(users)
            after = users[-1]

    def _discard(self, user_id: UUID, reply_id: UUID) -> None:
        self._out_lanes.discard(user_id, reply_id)
        self._out_lanes.make_due(user_id)
