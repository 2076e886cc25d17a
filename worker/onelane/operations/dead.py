"""Dead messages: those that left their user's order and wait for an operator's word."""

from datetime import datetime
from uuid import UUID

from onelane.db import Database
from onelane.model import Value

LISTED = "state = 'dead' AND (dropped_at IS NULL OR dropped_at < processed_at)"
"""Which messages are listed: dropped ones are not, unless they were redriven all the same and died again."""
PAGE_MAX = 500

SELECT = f"""
SELECT id AS message_id, user_id, seq, session_id, attempts, last_error, processed_at AS died_at
  FROM messages
 WHERE {LISTED} AND (user_id, seq) > (%(user_id)s, %(seq)s) AND (%(only)s::uuid IS NULL OR user_id = %(only)s)
 ORDER BY user_id, seq
 LIMIT %(most)s
"""  # noqa: S608 - a constant of ours
FIRST_USER = UUID(int=0)


class DeadMessage(Value):
    """A dead message, without what it says."""

    message_id: UUID
    user_id: UUID
    seq: int
    session_id: UUID
    attempts: int
    last_error: str | None
    died_at: datetime

    @property
    def reason(self) -> str:
        """The last line of the error: its kind."""
        return last_line(self.last_error)


def dead_messages(
    database: Database, *, user_id: UUID | None = None, after: DeadMessage | None = None, most: int
) -> list[DeadMessage]:
    """List dead messages by user and in their order, from after `after` on."""
    rows = database.rows(
        SELECT,
        {
            "only": user_id,
            "user_id": after.user_id if after else FIRST_USER,
            "seq": after.seq if after else 0,
            "most": most,
        },
    )
    return [DeadMessage(**row._asdict()) for row in rows]


def last_line(error: str | None) -> str:
    """Shorten a traceback to what it ends with."""
    lines = (error or "").strip().splitlines()
    return lines[-1].strip() if lines else ""
