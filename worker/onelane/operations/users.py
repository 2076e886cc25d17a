"""A user, with sessions and waiting messages, as an operator may see them: no text and no sender."""

from datetime import datetime
from uuid import UUID

from onelane.model import Value
from onelane.operations.dead import LISTED
from onelane.postgres.db import Database

USER = f"""
SELECT u.id, u.channel, u.waiting, u.last_seq, u.fence, u.last_accepted_at, u.paused_at, u.pause_reason,
       ends.seq AS ends_after_seq, ends.end_reason AS ends_for,
       (SELECT count(*) FROM messages WHERE user_id = u.id AND {LISTED}) AS dead
  FROM users u
  LEFT JOIN LATERAL (SELECT seq, end_reason FROM inbox
                      WHERE user_id = u.id AND seq >= u.next_seq AND end_at IS NOT NULL
                      ORDER BY seq LIMIT 1) ends ON true
 WHERE u.id = %s
"""  # noqa: S608 - a constant of ours
SESSIONS = """
SELECT s.id, s.status, s.started_at, s.last_message_at, s.escalated_at, s.ended_at, s.ended_reason,
       m.messages, m.replies, m.dead
  FROM (SELECT * FROM conversation_sessions
         WHERE user_id = ANY(ARRAY(
               SELECT %(user_id)s::uuid UNION ALL SELECT id FROM users WHERE merged_into = %(user_id)s))
         ORDER BY status = 'ended', started_at DESC, ended_at DESC LIMIT %(most)s) s
 CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE direction = 'in' AND kind = 'message') AS messages,
                            count(*) FILTER (WHERE direction = 'out') AS replies,
                            count(*) FILTER (WHERE state = 'dead') AS dead
                       FROM messages WHERE session_id = s.id) m
 ORDER BY s.status = 'ended', s.started_at DESC, s.ended_at DESC
"""
WAITING = """
SELECT id AS message_id, seq, accepted_at, attempts, laters, deaths, last_error, redriven_at
  FROM inbox WHERE user_id = %s ORDER BY seq LIMIT %s
"""


NEWEST = """
SELECT id, channel, waiting, last_accepted_at, paused_at, created_at FROM users
 WHERE id < %(before)s AND channel NOT LIKE '.%%' ORDER BY id DESC LIMIT %(most)s
"""
LAST_USER = UUID(int=2**128 - 1)


class UserRecord(Value):
    """A user."""

    id: UUID
    channel: str
    waiting: int
    """How many messages wait."""
    dead: int
    last_seq: int
    fence: int
    """The number of the newest lease that has written."""
    last_accepted_at: datetime | None
    paused_at: datetime | None
    pause_reason: str | None
    ends_after_seq: int | None
    """The waiting message after which a noted end takes effect."""
    ends_for: str | None
    """The reason of that end."""


class Listed(Value):
    """A user of a list."""

    id: UUID
    channel: str
    waiting: int
    last_accepted_at: datetime | None
    paused_at: datetime | None
    created_at: datetime


class SessionRecord(Value):
    """A session, with the number of its messages and replies."""

    id: UUID
    status: str
    started_at: datetime
    last_message_at: datetime
    escalated_at: datetime | None
    ended_at: datetime | None
    ended_reason: str | None
    messages: int
    replies: int
    dead: int


class WaitingMessage(Value):
    """A message that waits, without its text."""

    message_id: UUID
    seq: int
    accepted_at: datetime
    attempts: int
    laters: int
    deaths: int
    last_error: str | None
    redriven_at: datetime | None


def find_user(database: Database, user_id: UUID) -> UserRecord | None:
    """Return the user, if there is one with this id."""
    row = database.row(USER, (user_id,))
    return UserRecord(**row._asdict()) if row else None


def newest_users(database: Database, most: int, before: UUID | None = None) -> list[Listed]:
    """List users, newest first; those that were there before `before`."""
    rows = database.rows(NEWEST, {"before": before or LAST_USER, "most": most})
    return [Listed(**row._asdict()) for row in rows]


def user_of_session(database: Database, session_id: UUID) -> UUID | None:
    """Return the user whose session it is, if there is such a session."""
    row = database.row("SELECT user_id FROM conversation_sessions WHERE id = %s", (session_id,))
    return row.user_id if row else None


def sessions_of(database: Database, user_id: UUID, most: int) -> list[SessionRecord]:
    """List a user's sessions, the open one, then newest first; also those of users that were merged into this one."""
    rows = database.rows(SESSIONS, {"user_id": user_id, "most": most})
    return [SessionRecord(**row._asdict()) for row in rows]


def waiting_of(database: Database, user_id: UUID, most: int) -> list[WaitingMessage]:
    """List a user's waiting messages, next first."""
    return [WaitingMessage(**row._asdict()) for row in database.rows(WAITING, (user_id, most))]
