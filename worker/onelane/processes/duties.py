"""The duties that workers take turns at: put back who waits in Postgres and not in Redis; end what is over.

Every few seconds one of the workers does a round, bounded in time; the others help it to put back. Nothing here is
needed for a worker's death: the lanes of the dead become due by themselves.
"""

import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from onelane.db import Database
from onelane.errors import LanesUnavailable, StoreAway, StoreUnavailable, describe
from onelane.lanes import clock
from onelane.lanes.lanes import Lanes
from onelane.model import uuid_or_none
from onelane.sessions import Sessions
from onelane.telemetry.log import event
from onelane.telemetry.numbers import RECONCILED, REDRIVEN

ROUND_S = 3.0
"""What is requeued right after a round is answered within five seconds all the same."""
RECONCILE_MAX_S = 10.0
SWEEP_MAX_S = 5.0
REDRIVE_MAX_S = 10.0
"""Users whose rows are locked take seconds each; whoever is left is found again, in another order."""
SWEEP_ROUNDS = 5
FORGET_ROUNDS = 20
"""What nobody waits for is done in every fifth or twentieth round: an idle worker asks little."""
LAP_EVERY_S = 15
"""A message whose web process died before Redis had it waits so long at most, unless a lap takes long."""
LAP_EVERY_MAX_S = 60
LAP_SHARE = 0.05
"""Which part of the time Postgres may read for laps, where very much waits, or a snapshot keeps dead rows for long."""
USERS_PER_PAGE = 500
FORGET_MAX = 1_000
DELIVERIES_KEPT_DAYS = 8
"""WhatsApp delivers again for up to seven."""
FORGET = """
SELECT forget_deliveries(old, %(most)s), forget_statuses(old, %(most)s), forget_quarantined(%(most)s)
  FROM (SELECT clock_timestamp() - make_interval(days => %(days)s) AS old) _
"""

Done = TypeVar("Done")

# One step of the index a user: a plain DISTINCT would read all waiting messages of each.
WAITING_USERS = """
WITH RECURSIVE waiting (user_id, nr) AS (
    (SELECT user_id, 1 FROM inbox WHERE user_id > %(after)s ORDER BY user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT i.user_id FROM inbox i WHERE i.user_id > w.user_id ORDER BY i.user_id LIMIT 1), nr + 1
      FROM waiting w
     WHERE w.user_id IS NOT NULL AND nr < %(most)s)
SELECT w.user_id, u.paused_at IS NOT NULL AS is_paused
  FROM waiting w JOIN users u ON u.id = w.user_id ORDER BY w.user_id
"""
# Only a message of this very lane: somebody may have put another user's job there.
REQUEUED = """
SELECT state, processed_at AS died_at FROM messages WHERE id = %(message_id)s AND user_id = %(user_id)s
UNION ALL
SELECT 'received', NULL FROM inbox WHERE id = %(message_id)s AND user_id = %(user_id)s
"""


class Page(NamedTuple):
    """What came of some users in a lap."""

    added: int
    """Lanes that they had not."""
    reached: int
    """How many of the users were dealt with; the next was left out by a full Redis."""


class Duties:
    """One worker's share."""

    def __init__(
        self, database: Database, lanes: Lanes, sessions: Sessions, worker: str, *, parked_max_s: float
    ) -> None:
        self._database = database
        self._lanes = lanes
        self._sessions = sessions
        self._worker = worker
        self._parked_max_s = parked_max_s
        self._rounds = 0

    def round(self) -> None:
        """Do the duties; those of them that another worker does this round are left to it. Each fails alone."""
        if self._database.breaker.is_open:
            return  # another worker may be able to
        dead = self._lanes.marks.claim_duty("duties", self._worker, ROUND_S * 0.9)
        if dead:
            _alone("redrive", self.redrive_requeued)
        _alone("reconcile", self.reconcile)
        if dead is None:
            return
        if self._rounds % SWEEP_ROUNDS == 0:
            _alone("sweep", self.sweep)
        if self._rounds % FORGET_ROUNDS == 0:
            _alone("forget_deliveries", self.forget_deliveries)
            _alone("forget_workers", self._lanes.roster.forget_dead)
        self._rounds += 1

    def reconcile(self) -> int:
        """Add lanes, without jobs, for who waits in Postgres and has none in Redis; return how many.

        A lap over all waiting users is made when the mark of the last one is gone: every LAP_EVERY_S, and at once when
        Redis has lost its memory, or is full. All workers make it together: the cursor is moved on by who takes a page,
        so that no two take the same. Who dies with a page leaves its users to the next lap.
        """
        began, read_s, added = time.monotonic(), 0.0, 0
        marks = self._lanes.marks
        if marks.is_reconciled(LAP_EVERY_MAX_S):
            return 0
        self._call_back()
        while time.monotonic() < began + RECONCILE_MAX_S and not marks.is_reconciled(LAP_EVERY_MAX_S):
            after, reads_at = marks.cursor(), time.monotonic()
            users = self._database.rows(WAITING_USERS, {"after": after, "most": USERS_PER_PAGE})
            read_s += time.monotonic() - reads_at
            if users and not marks.move_cursor(after, users[-1].user_id, self._worker):
                continue  # another worker has taken this page
            page = self._reconcile_page(users)
            added += page.added
            if page.reached < len(users):  # a full Redis takes no more lanes now
                marks.put_cursor_back(users[page.reached - 1].user_id if page.reached else after)
                break
            if len(users) < USERS_PER_PAGE:
                marks.note_reconciled(_next_lap_s(read_s))
        if added:
            RECONCILED.count(amount=added)
            event("reconciled", lanes=added)
        return added

    def sweep(self) -> int:
        """End sessions whose time is over, batch by batch; return how many."""
        ends, ended = time.monotonic() + SWEEP_MAX_S, 0
        while True:
            batch = self._sessions.sweep()
            ended += batch.ended
            if not batch.has_more or time.monotonic() > ends:
                return ended

    def forget_deliveries(self) -> None:
        """Forget what no provider delivers again, and what is kept no longer, in bounded batches."""
        self._database.rows(FORGET, {"days": DELIVERIES_KEPT_DAYS, "most": FORGET_MAX})

    def redrive_requeued(self) -> int:
        """Let dead messages wait again that somebody put back with RQ's own tools; return how many.

        Postgres redrives all of them, lowest first, before any lane becomes due: they run in their user's order,
        whichever was pressed first.
        """
        found = self._lanes.requeued(self._lanes.buried_users())
        ends = time.monotonic() + REDRIVE_MAX_S
        redriven = []
        for user_id, job in self._in_order(found):
            if time.monotonic() < ends and _lane(user_id, partial(self._waits_again, user_id, job)):
                redriven.append((user_id, job))
        for user_id, job in redriven:
            _lane(user_id, partial(self._lanes.enqueue, user_id, UUID(job)))
            REDRIVEN.count()
            event("message_redriven", user_id=user_id, message_id=job)
        for user_id in {user_id for user_id, _ in redriven}:
            _lane(user_id, partial(self._lanes.make_due, user_id))
        return len(redriven)

    def _reconcile_page(self, users: list[Any]) -> Page:
        """Reconcile some users; a page that fails is reported, and the lap goes on after it."""
        try:
            return self._reconcile(users)
        except (StoreUnavailable, LanesUnavailable):
            raise
        except Exception as error:  # noqa: BLE001 - else nobody after this page would be put back
            event("duty_failed", duty="reconcile", failure=describe(error))
            return Page(0, len(users))

    def _reconcile(self, users: list[Any]) -> Page:
        """Give every waiting user of `users` a lane that is not paused unless the user is."""
        lanes = self._lanes.scores([user.user_id for user in users])
        unknown = [user for user, score in zip(users, lanes, strict=True) if score is None]
        for user, score in zip(users, lanes, strict=True):
            if score == inf and not user.is_paused:
                _lane(user.user_id, partial(self._lanes.make_due, user.user_id, unpause=True))
        have_lanes = self._lanes.bring_back([user.user_id for user in unknown])
        for user, has_lane in zip(unknown, have_lanes, strict=True):
            if user.is_paused and has_lane:
                _lane(user.user_id, partial(self._lanes.pause, user.user_id))
        reached = users.index(unknown[have_lanes.index(False)]) if False in have_lanes else len(users)
        return Page(sum(have_lanes), reached)

    def _call_back(self) -> None:
        """Make lanes due that wait for longer than anything we set."""
        if lanes := clock.call_back(self._lanes.scripts, self._parked_max_s):
            event("lanes_called_back", lanes=lanes)

    def _in_order(self, found: list[tuple[UUID, str]]) -> list[tuple[UUID, str]]:
        """Sort each user's requeued jobs by their messages' numbers; what is no message comes last.

        The users stay in the order in which they were found, which is another each time: none is always the last.
        """
        ids = [message for _, job in found if (message := uuid_or_none(job))]
        rows = self._database.rows("SELECT id, seq FROM messages WHERE id = ANY(%s::uuid[])", (ids,)) if ids else []
        seqs = {str(row.id): row.seq for row in rows}
        places = {user_id: place for place, (user_id, _) in enumerate(found)}
        return sorted(found, key=lambda pair: (places[pair[0]], seqs.get(pair[1]) or inf))

    def _waits_again(self, user_id: UUID, job: str) -> bool:
        """Redrive the dead message behind a requeued job in Postgres; take what is no such job off the lane."""
        message_id = uuid_or_none(job)
        asked = {"message_id": message_id, "user_id": user_id}
        row = self._database.row(REQUEUED, asked) if message_id else None
        if row is None or row.state == "processed":
            self._lanes.discard(user_id, job)
            event("foreign_jobs", user_id=user_id, jobs=1)
            return False
        if row.state == "dead":  # a death that was seen: asked again, no later one is undone
            redriven = self._database.row("SELECT redrive_message(%s, %s) AS whose", (message_id, row.died_at))
            if message_id and redriven and redriven.whose not in {None, user_id}:  # merged into another
                self._lanes.discard(user_id, job)
                self._lanes.enqueue(redriven.whose, message_id)
                return False
        return True


def _next_lap_s(read_s: float) -> int:
    """Return after how long the next lap begins, behind one in whose last round Postgres read for so long."""
    return round(min(LAP_EVERY_MAX_S, max(LAP_EVERY_S, read_s / LAP_SHARE)))


def _alone(duty: str, act: Callable[[], object]) -> None:
    """Do a duty: whatever keeps it from being done keeps no other."""
    try:
        act()
    except (StoreUnavailable, LanesUnavailable) as error:
        event("duty_postponed", duty=duty, error=str(error))
    except Exception as error:  # noqa: BLE001 - the next round may succeed
        event("duty_failed", duty=duty, failure=describe(error))


def _lane(user_id: UUID, act: Callable[[], Done]) -> Done | None:
    """Do something for one user: what is wrong with it, or locks it, keeps no other from its turn."""
    try:
        return act()
    except (LanesUnavailable, StoreAway):
        raise
    except Exception as error:  # noqa: BLE001 - an odd lane
        event("lane_failed", user_id=user_id, failure=describe(error))
        return None
