"""The scripts in Redis, each as one atomic step on one lane: the lane afterwards, and the answer.

Beside `worker/onelane/lanes/lua/`, where they are named the same. A park of 0 s and one of a minute are one here: when
time passes is not the scripts' to say.
"""

from collections.abc import Iterable

from tests.explore.state import NOBODY, Lane, Place


def enqueue(lane: Lane, ids: Iterable[int]) -> tuple[Lane, tuple[int, ...]]:
    """Put jobs on the lane, and the lane among the others unless it is there; answer which jobs are new."""
    new = tuple(one for one in ids if one not in lane.jobs)
    return _added(lane)._replace(jobs=lane.jobs.union(new)), new


def bring_back(lane: Lane) -> tuple[Lane, bool]:
    """Add the lane, without a job, unless it is there."""
    return _added(lane), True


def _added(lane: Lane) -> Lane:
    return lane if lane.place is not Place.ABSENT else lane._replace(place=Place.DUE)


def lease(lane: Lane, new: int) -> tuple[Lane, bool]:
    """Lock a lane that is due; answer whether it was. One that is held after all gets its right place."""
    if lane.is_live:
        return lane._replace(place=Place.LATER), False
    return lane._replace(place=Place.LATER, lock=new, is_live=True), True


def lease_again(lane: Lane, mine: int) -> tuple[Lane, bool]:
    """Answer the same call again: whether what it leased is still held."""
    return lane, lane.lock == mine


def renew(lane: Lane, mine: int) -> tuple[Lane, bool]:
    """Let a lease live on, also one that has run out and was not taken over; answer whether it is still held."""
    if lane.lock != mine:
        return lane, False
    place = lane.place and Place.LATER
    return lane._replace(is_live=True, place=place), True


def finish(lane: Lane, mine: int, done: Iterable[int], *, has_more: bool, may_go_on: bool) -> tuple[Lane, str]:
    """Take the jobs of what is done off the lane, then go on with it, release it or forget it."""
    if lane.lock != mine:
        return lane, "lost"
    jobs = lane.jobs.difference(done)
    has_work = has_more or bool(jobs)
    if has_work and may_go_on and lane.is_live:
        return lane._replace(jobs=jobs), "go_on"
    place = Place.DUE if has_work else Place.ABSENT
    return Lane(place, NOBODY, is_live=False, jobs=jobs), "released" if has_work else "forgotten"


def park(lane: Lane, mine: int, done: Iterable[int]) -> tuple[Lane, bool]:
    """Take the jobs of what is done off the lane, and release it; answer whether it was still held."""
    if lane.lock != mine:
        return lane, False
    return Lane(Place.DUE, NOBODY, is_live=False, jobs=lane.jobs.difference(done)), True


# what time does to a lane, and a loss of memory


def run_out(lane: Lane) -> Lane:
    """End a lease: its score is over, and so is its lock, of which the hash is left."""
    return lane._replace(place=Place.DUE, is_live=False)


def forget() -> Lane:
    """Lose everything."""
    return Lane()
