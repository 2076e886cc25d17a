"""Recovery: whatever Postgres calls waiting and Redis does not know is put back; whatever is over is ended.

Every few seconds one of the workers does a round, bounded in time. Nothing here is needed for a worker's death: the
lanes of the dead become due by themselves.
"""

import time
from typing import Any
from uuid import UUID

from worker.db import Database
from worker.errors import LanesUnavailable, StoreUnavailable
from worker.lanes import Lanes
from worker.sessions import Sessions
from worker.telemetry import log

ROUND_S = 5.0
ROUND_MAX_S = 2.0
USERS_PER_PAGE = 500
JOBS_PER_USER_MAX = 100
BURIED_PER_ROUND_MAX = 500
FIRST_USER = UUID(int=0)

WAITING_USERS = """
SELECT w.user_id, u.paused_at IS NOT NULL AS is_paused
  FROM (SELECT DISTINCT user_id FROM messages
         WHERE state = 'received' AND user_id > %s ORDER BY user_id LIMIT %s) w
  JOIN users u ON u.id = w.user_id
 ORDER BY w.user_id
"""
WAITING_MESSAGES = """
SELECT w.user_id, w.id
  FROM unnest(%s::uuid[]) AS wanted (user_id)
 CROSS JOIN LATERAL (SELECT user_id, id FROM messages
                      WHERE user_id = wanted.user_id AND state = 'received' ORDER BY seq LIMIT %s) w
"""


class Recovery:
    """One worker's share in the duties that all workers take turns at."""

    def __init__(self, database: Database, lanes: Lanes, sessions: Sessions, worker: str) -> None:
        self._database = database
        self._lanes = lanes
        self._sessions = sessions
        self._worker = worker
        self._after = FIRST_USER

    def round(self) -> None:
        """Do the duties, unless another worker does them this round."""
        try:
            if self._lanes.claim_duty("recovery", self._worker, ROUND_S * 0.9):
                self.reconcile()
                self.redrive_requeued()
                self._sessions.sweep()
        except (StoreUnavailable, LanesUnavailable) as error:
            log.warning("recovery_postponed", error=str(error))

    def reconcile(self) -> int:
        """Enqueue what waits in Postgres and has no lane in Redis; return how many jobs were new."""
        ends = time.monotonic() + ROUND_MAX_S
        enqueued = 0
        while time.monotonic() < ends:
            users = self._database.rows(WAITING_USERS, (self._after, USERS_PER_PAGE))
            enqueued += self._reconcile(users)
            self._after = users[-1].user_id if len(users) == USERS_PER_PAGE else FIRST_USER
            if self._after == FIRST_USER:
                break
        if enqueued:
            log.info("reconciled", jobs=enqueued)
        return enqueued

    def redrive_requeued(self) -> int:
        """Let dead messages wait again that somebody put back with RQ's own tools; return how many."""
        redriven = 0
        for user_id, job in self._lanes.requeued(self._lanes.buried_users(BURIED_PER_ROUND_MAX)):
            redriven += self._redrive(user_id, UUID(job))
        return redriven

    def _reconcile(self, users: list[Any]) -> int:
        lanes = self._lanes.scores([user.user_id for user in users])
        unknown = [user.user_id for user, score in zip(users, lanes, strict=True) if score is None]
        for user, score in zip(users, lanes, strict=True):
            if score == float("inf") and not user.is_paused:
                self._lanes.make_due(user.user_id, unpause=True)
        if not unknown:
            return 0
        waiting = self._database.rows(WAITING_MESSAGES, (unknown, JOBS_PER_USER_MAX))
        return self._lanes.enqueue_many([(row.user_id, row.id) for row in waiting])

    def _redrive(self, user_id: UUID, message_id: UUID) -> bool:
        row = self._database.row("SELECT redrive_message(%s) AS user_id", (message_id,))
        if row is not None and row.user_id == user_id:
            self._lanes.enqueue(user_id, message_id)
            self._lanes.make_due(user_id)
            log.info("message_redriven", user_id=str(user_id), message_id=str(message_id))
            return True
        self._lanes.discard(user_id, message_id)
        return False
