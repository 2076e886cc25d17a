"""Leave a lane on which nothing waits, with no job of ours behind; or one on which a later lease has written."""

from typing import Final, Protocol
from uuid import UUID

from onelane.lanes.lanes import Lanes
from onelane.model import Lease, uuid_or_none
from onelane.postgres.connection import Row
from onelane.telemetry.log import event
from onelane.turns.answers import answered

OF_NOBODY: Final = """
SELECT id, 'processed' AS state, NULL AS last_error FROM unnest(%(ids)s::uuid[]) AS id
 WHERE NOT EXISTS (SELECT FROM users WHERE users.id = %(user_id)s)
"""
"""What is on the lane of a user who is not there was put on it late: its user was forgotten meanwhile."""


class States(Protocol):
    """What knows what became of the jobs of a lane."""

    async def states(self, user_id: UUID, ids: list[str]) -> list[Row]:
        """Return id, state (received, processed or dead) and last_error of those of `ids` that are this user's.

        Of a user who is not there all are processed.
        """


async def release_idle(lanes: Lanes, records: States, lease: Lease) -> None:
    """Remove finished jobs and bury dead ones. Jobs that are not ours stay, and are reported."""
    jobs = await answered(lanes.jobs_soon(lease.user_id))
    ids = [job for job in jobs if (found := uuid_or_none(job)) and str(found) == job]
    states = await records.states(lease.user_id, ids) if jobs else []
    for row in states:
        if row.state == "dead":
            await answered(lanes.bury_soon(lease, row.id, row.last_error or ""))
    done = {str(row.id) for row in states if row.state == "processed"}
    still_there = await answered(lanes.jobs_soon(lease.user_id)) if jobs else []
    left = [job for job in jobs if job in still_there and job not in done]
    if foreign := len(set(jobs)) - len(states):
        event("foreign_jobs", user_id=lease.user_id, jobs=foreign)
    is_waiting = any(row.state == "received" for row in states)
    await answered(lanes.finish_soon(lease, sorted(done), has_more=is_waiting, foreign=len(left)))


async def give_way(lanes: Lanes, lease: Lease, newer: int) -> None:
    """Note that a later lease has written, under the fence `newer`: a Redis that lost its counter gives higher ones."""
    event("begin_fenced", user_id=lease.user_id, fence=lease.fence, newer=newer)
    await answered(lanes.raise_fence_soon(newer))
