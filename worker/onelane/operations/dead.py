"""Dead messages: they have left their user's order, and wait for an operator to retry or drop them."""

from datetime import datetime
from uuid import UUID

from onelane.model import Value
from onelane.postgres.db import Database

LISTED = "is_dead AND (dropped_at IS NULL OR dropped_at < processed_at)"
"""Which messages are listed: dead ones, unless they were dropped after their death."""
PAGE_MAX = 500

SELECT = f"""
SELECT id AS message_id, user_id, seq, session_id, attempts, last_error, processed_at AS died_at
  FROM messages
 WHERE {LISTED} AND (user_id, seq) > (%(user_id)s, %(seq)s) AND (%(only)s::uuid IS NULL OR user_id = %(only)s)
 ORDER BY user_id, seq
 LIMIT %(most)s
"""  # noqa: S608 - a constant of ours
FIRST_USER = UUID(int=0)

Place = tuple[UUID, int]
"""A message by its user and number."""


class DeadMessage(Value):
    """A dead message, without its text."""

    message_id: UUID
    user_id: UUID
    seq: int
    session_id: UUID
    attempts: int
    last_error: str | None
    died_at: datetime

    @property
    def place(self) -> Place:
        """Where it stands in the list."""
        return self.user_id, self.seq

    @property
    def reason(self) -> str:
        """The last line of the error: its kind."""
        return last_line(self.last_error)


def dead_messages(
    database: Database,
    *,
    user_id: UUID | None = None,
    after: Place | None = None,
    most: int,
) -> list[DeadMessage]:
    """List dead messages by user and number, beginning after those of `after`."""
    rows = database.rows(
        SELECT,
        {
            "only": user_id,
            "user_id": after[0] if after else FIRST_USER,
            "seq": after[1] if after else 0,
            "most": most,
        },
    )
    return [DeadMessage(**row._asdict()) for row in rows]


def last_line(error: str | None) -> str:
    """Return the last line of a traceback."""
    lines = (error or "").strip().splitlines()
    return lines[-1].strip() if lines else ""
