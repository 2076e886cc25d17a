"""Puts back who waits in Postgres and has no lane in Redis: one reconciler for each kind of lane.

A lap goes over all waiting users of the kind, page by page, and all workers make it together.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from onelane import keys
from onelane.errors import LanesUnavailable, StoreAway, StoreUnavailable, describe
from onelane.lanes import clock
from onelane.lanes.lanes import Lanes
from onelane.periodic import Usual
from onelane.postgres.db import Database
from onelane.telemetry.log import event
from onelane.telemetry.numbers import RECONCILED

RECONCILE_MAX_S = 10.0
LAP_EVERY_S: Final = 15
"""A message whose web process died before Redis had it waits so long at most, unless a lap takes long."""
LAP_EVERY_MAX_S: Final = 60
LAP_SHARE: Final = 0.05
"""Which part of the time Postgres may read for laps, where very much waits, or a snapshot keeps dead rows for long."""
USERS_PER_PAGE: Final = 500
USERS_PER_PAGE_MAX: Final = 2_000
QUICK_S: Final = 0.1
"""A page that was read so quickly is followed by one of twice as many users: each page waits six times for a server."""

Done = TypeVar("Done")

# One step of the index a user: a plain DISTINCT would read all that waits of each. OFFSET keeps the users from being
# joined, which reads all of them for each page where the planner takes their table for small.
WAITING: Final = """
WITH RECURSIVE waiting (user_id, nr) AS (
    (SELECT user_id, 1 FROM {table} WHERE user_id > %(after)s ORDER BY user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT i.user_id FROM {table} i WHERE i.user_id > w.user_id ORDER BY i.user_id LIMIT 1), nr + 1
      FROM waiting w
     WHERE w.user_id IS NOT NULL AND nr < %(most)s)
SELECT w.user_id, {is_paused} AS is_paused
  FROM waiting w, LATERAL (SELECT paused_at FROM users WHERE id = w.user_id OFFSET 0) u ORDER BY w.user_id
"""
WAITING_USERS: Final = {
    keys.IN: WAITING.format(table="inbox", is_paused="u.paused_at IS NOT NULL"),
    keys.OUT: WAITING.format(table="outbox", is_paused="false"),
}


class Page(NamedTuple):
    """What came of some users in a lap."""

    added: int
    """Lanes that they had not."""
    reached: int
    """How many of the users were dealt with; the next was left out by a full Redis."""


class Reconciler:
    """One worker's share in the laps of one kind."""

    def __init__(self, database: Database, lanes: Lanes, worker: str, parked_max_s: float) -> None:
        """`parked_max_s` is longer than any lane is made to wait."""
        self._database = database
        self._lanes = lanes
        self._worker = worker
        self._parked_max_s = parked_max_s
        self._usual_read = Usual()

    def reconcile(self) -> int:
        """Add lanes, without jobs, for who waits in Postgres and has none in Redis; return how many.

        A lap over all waiting users is to be made when the mark of the last one is gone (see `next_lap_s`), and at once
        when Redis has lost its memory, or is full. All workers make it together: the cursor is moved on by who takes a
        page, so that no two take the same. Who dies with a page leaves its users to the next lap.
        """
        began, read_s, added, most = time.monotonic(), 0.0, 0, USERS_PER_PAGE
        marks = self._lanes.marks
        self._call_back()
        while read_s == 0 or not (time.monotonic() > began + RECONCILE_MAX_S or marks.is_reconciled(LAP_EVERY_MAX_S)):
            after, reads_at = marks.cursor(), time.monotonic()
            users = self._database.rows(WAITING_USERS[self._lanes.kind], {"after": after, "most": most})
            took_s = time.monotonic() - reads_at
            read_s, is_last = read_s + took_s, len(users) < most
            most = next_most(most, took_s)
            if users and not marks.move_cursor(after, users[-1].user_id, self._worker):
                continue  # another worker has taken this page
            page = self._reconcile_page(users)
            added += page.added
            if page.reached < len(users):  # a full Redis takes no more lanes now
                marks.put_cursor_back(users[page.reached - 1].user_id if page.reached else after)
                break
            if is_last:
                marks.note_reconciled(next_lap_s(self._usual_read.after(read_s)))
                break
        if added:
            RECONCILED.count(amount=added)
            event("reconciled", kind=self._lanes.kind, lanes=added)
        return added

    def _reconcile_page(self, users: Sequence[Any]) -> Page:
        """Reconcile some users; a page that fails is reported, and the lap goes on after it."""
        try:
            return self._reconcile(users)
        except (StoreUnavailable, LanesUnavailable):
            raise
        except Exception as error:  # noqa: BLE001 - else nobody after this page would be put back
            event("duty_failed", duty="reconcile", failure=describe(error))
            return Page(0, len(users))

    def _reconcile(self, users: Sequence[Any]) -> Page:
        """Give every waiting user of `users` a lane that is not paused unless the user is."""
        lanes = self._lanes.scores([user.user_id for user in users])
        unknown = [user for user, score in zip(users, lanes, strict=True) if score is None]
        for user, score in zip(users, lanes, strict=True):
            if score == inf and not user.is_paused:
                for_lane(user.user_id, partial(self._lanes.make_due, user.user_id, unpause=True))
        have_lanes = self._lanes.bring_back([user.user_id for user in unknown])
        for user, has_lane in zip(unknown, have_lanes, strict=True):
            if user.is_paused and has_lane:
                for_lane(user.user_id, partial(self._lanes.pause, user.user_id))
        reached = users.index(unknown[have_lanes.index(False)]) if False in have_lanes else len(users)
        return Page(sum(have_lanes), reached)

    def _call_back(self) -> None:
        """Make lanes due that wait for longer than anything we set."""
        if lanes := clock.call_back(self._lanes.scripts, self._parked_max_s):
            event("lanes_called_back", lanes=lanes)


def next_most(most: int, took_s: float) -> int:
    """Return how many users the next page has, where one of at most so many was read within `took_s`."""
    return min(2 * most, USERS_PER_PAGE_MAX) if took_s < QUICK_S else USERS_PER_PAGE


def next_lap_s(read_s: float) -> int:
    """Return after how long the next lap begins, where Postgres usually reads for so long in the last round of one."""
    return round(min(LAP_EVERY_MAX_S, max(LAP_EVERY_S, read_s / LAP_SHARE)))


def for_lane(user_id: UUID, act: Callable[[], Done]) -> Done | None:
    """Do something for one user: what is wrong with it, or locks it, keeps no other from its turn."""
    try:
        return act()
    except (LanesUnavailable, StoreAway):
        raise
    except Exception as error:  # noqa: BLE001 - an odd lane
        event("lane_failed", user_id=user_id, failure=describe(error))
        return None
