"""The scripts in Redis, each as one atomic step on one lane: the lane afterwards, and the answer.

Beside `worker/onelane/lanes/lua/`, where they are named the same. A park of 0 s and one of a minute are one here: when
time passes is not the scripts' to say. So `postpone`, which lets a lane wait that nobody has, changes nothing.
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
    return Lane(Place.LATER, new, is_live=True, jobs=lane.jobs), True


def lease_again(lane: Lane, mine: int) -> tuple[Lane, bool]:
    """Answer the same call again: whether what it leased is still held, which lives on then."""
    return renew(lane, mine)


def renew(lane: Lane, mine: int) -> tuple[Lane, bool]:
    """Let a lease live on, also one that has run out and was not taken over; answer whether it is still held."""
    if lane.lock != mine:
        return lane, False
    place = Place.LATER if lane.place in {Place.DUE, Place.LATER} else lane.place
    return lane._replace(is_live=True, place=place), True


def finish(
    lane: Lane, mine: int, done: Iterable[int], *, has_more: bool, may_go_on: bool, pause: bool
) -> tuple[Lane, str]:
    """Take the jobs of what is done off the lane, then go on with it, pause it, release it or forget it."""
    if lane.lock != mine:
        return lane, "lost"
    jobs, is_paused = lane.jobs.difference(done), lane.place is Place.PAUSED
    is_resumed = pause and lane.is_resumed and not is_paused
    has_work = has_more or bool(jobs) or is_resumed
    stays_paused = (pause and not is_resumed) or is_paused
    if has_work and may_go_on and lane.is_live and not stays_paused:
        return lane._replace(jobs=jobs), "go_on"
    if not has_work:
        return Lane(Place.ABSENT, jobs=jobs), "forgotten"
    if stays_paused:
        return Lane(Place.PAUSED, jobs=jobs), "paused"
    return Lane(Place.DUE, jobs=jobs), "released"


def park(lane: Lane, mine: int, done: Iterable[int]) -> tuple[Lane, bool]:
    """Take the jobs of what is done off the lane, and release it; answer whether it was still held."""
    if lane.lock != mine:
        return lane, False
    place = lane.place if lane.place is Place.PAUSED else Place.DUE
    return Lane(place, jobs=lane.jobs.difference(done)), True


def pause(lane: Lane) -> tuple[Lane, bool]:
    """Let nobody lease the lane, and its holder only end; answer whether there is one."""
    return (lane, False) if lane.place is Place.ABSENT else (lane._replace(place=Place.PAUSED), True)


def resume(lane: Lane) -> tuple[Lane, bool]:
    """End a pause; answer whether the lane is due. Who has the lock is let know that what it has heard is old."""
    is_resumed = lane.lock != NOBODY
    return lane._replace(place=Place.LATER if lane.is_live else Place.DUE, is_resumed=is_resumed), not lane.is_live


# what time does to a lane, and a loss of memory


def run_out(lane: Lane) -> Lane:
    """End a lease: its score is over, and so is its lock, of which the hash is left."""
    place = lane.place if lane.place is Place.PAUSED else Place.DUE
    return lane._replace(place=place, is_live=False)


def forget() -> Lane:
    """Lose everything."""
    return Lane()
