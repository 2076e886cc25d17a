"""What somebody put back on its lane with RQ's own tools waits again: dead messages, and replies that failed."""

import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Final
from uuid import UUID

from onelane import keys
from onelane.lanes.lanes import Lanes
from onelane.model import uuid_or_none
from onelane.postgres.db import Database
from onelane.processes.reconciler import for_lane
from onelane.telemetry.log import event
from onelane.telemetry.numbers import REDRIVEN

REDRIVE_MAX_S = 10.0
"""Users whose rows are locked take seconds each; whoever is left is found again, in another order."""

# Only what is of this very lane: somebody may have put another user's job there.
MESSAGE: Final = """
SELECT state, processed_at AS died_at FROM messages
 WHERE id = %(id)s AND user_id = %(user_id)s AND direction = 'in'
UNION ALL
SELECT 'received', NULL FROM inbox WHERE id = %(id)s AND user_id = %(user_id)s
"""
REPLY: Final = """
SELECT state, xmin::text AS version FROM messages
 WHERE id = %(id)s AND user_id = %(user_id)s AND direction = 'out'
"""
PLACES: Final = "SELECT id, turn_seq, ordinal FROM messages WHERE id = ANY(%s::uuid[])"
RESENDABLE: Final = frozenset({"failed", "unknown"})

Again = Callable[[Database, UUID, UUID], UUID | None]
"""Returns on whose lane a message or reply of a user waits again; None for what is none, or is not to."""


class Requeued:
    """The jobs of one kind that RQ's tools put back."""

    def __init__(self, database: Database, lanes: Lanes) -> None:
        self._database = database
        self._lanes = lanes
        self._again: Again = {keys.IN: _message_again, keys.OUT: _reply_again}[lanes.kind]

    def redrive(self) -> int:
        """Let them wait again in Postgres; return how many.

        Postgres redrives all of them, first come first, before any lane becomes due: they run in their user's order,
        whichever was pressed first.
        """
        found = self._lanes.requeued(self._lanes.buried_users())
        ends = time.monotonic() + REDRIVE_MAX_S
        redriven = []
        for user_id, job in self._in_order(found):
            if time.monotonic() < ends and for_lane(user_id, partial(self._waits_again, user_id, job)):
                redriven.append((user_id, job))
        for user_id, job in redriven:
            for_lane(user_id, partial(self._lanes.enqueue, user_id, UUID(job)))
            REDRIVEN.count()
            if self._lanes.kind == keys.OUT:
                event("reply_resent", user_id=user_id, message_id=job)
            else:
                event("message_redriven", user_id=user_id, message_id=job)
        for user_id in {user_id for user_id, _ in redriven}:
            for_lane(user_id, partial(self._lanes.make_due, user_id))
        return len(redriven)

    def _in_order(self, found: list[tuple[UUID, str]]) -> list[tuple[UUID, str]]:
        """Sort each user's jobs as their messages and replies come; what is none of them comes last.

        The users stay in the order in which they were found, which is another each time: none is always the last.
        """
        ids = [message for _, job in found if (message := uuid_or_none(job))]
        rows = self._database.rows(PLACES, (ids,)) if ids else []
        places = {str(row.id): (row.turn_seq, row.ordinal) for row in rows}
        users = {user_id: place for place, (user_id, _) in enumerate(found)}
        return sorted(found, key=lambda pair: (users[pair[0]], places.get(pair[1], (inf, 0))))

    def _waits_again(self, user_id: UUID, job: str) -> bool:
        """Let what is behind a job wait again in Postgres; take what is no such job off the lane."""
        message_id = uuid_or_none(job)
        whose = self._again(self._database, user_id, message_id) if message_id else None
        if whose == user_id:
            return True
        self._lanes.discard(user_id, job)
        if message_id and whose:  # merged into another
            self._lanes.enqueue(whose, message_id)
        else:
            event("foreign_jobs", user_id=user_id, jobs=1)
        return False


def _message_again(database: Database, user_id: UUID, message_id: UUID) -> UUID | None:
    row = database.row(MESSAGE, {"id": message_id, "user_id": user_id})
    if row is None or row.state == "processed":
        return None
    if row.state != "dead":
        return user_id
    # A death that was seen: asked again, no later one is undone.
    redriven = database.row("SELECT redrive_message(%s, %s) AS whose", (message_id, row.died_at))
    return (redriven and redriven.whose) or user_id


def _reply_again(database: Database, user_id: UUID, reply_id: UUID) -> UUID | None:
    row = database.row(REPLY, {"id": reply_id, "user_id": user_id})
    if row is not None and row.state in RESENDABLE:  # what was seen: asked again, nothing later is undone
        resent = database.row("SELECT resend_reply(%s, %s) AS is_done", (reply_id, row.version))
        return user_id if resent and resent.is_done else None
    return user_id if row is not None and row.state == "pending" else None
