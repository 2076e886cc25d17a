"""What a worker does: the next step of each of its slots, and what the slot remembers afterwards.

On an in lane beside `worker/onelane/turns/shift.py`. A slot's stage names the call that it makes next, of which it
knows all that it will ask: a call whose answer is lost is made again, word for word.
"""

from collections.abc import Iterator

from tests.explore import lanes, records, sends
from tests.explore.records import Begun, Settled, Turn
from tests.explore.settings import Setting
from tests.explore.state import IDLE, IN, NONE, OUT, Lane, Place, Slot, State, fence_of, next_lease
from tests.explore.steps import At, Step, ended, finishes, looks, parks


def steps_of(state: State, setting: Setting, nr: int, kind: str) -> Iterator[Step]:
    """List what a slot may do next."""
    slot = state.workers[nr].slot(kind)
    at = At(state, setting, nr, kind, slot)
    if slot.tells:
        user, new = at.user, sorted(slot.tells)
        lane, answer = lanes.enqueue(user.sends, new)
        told = slot._replace(tells=NONE) if slot.stage != "ended" else IDLE
        call = ("enqueue", slot.user, OUT, new)
        yield from at.calls("lets the out lane know", call, user._replace(sends=lane), answer, told)
    if slot.stage != "ended":
        yield from STAGES[slot.stage](at)


# both kinds


def _lease(at: At) -> Iterator[Step]:
    new = next_lease(at.state)
    for nr, user in enumerate(at.state.users):
        lane = user.lane(at.kind)
        if lane.place is not Place.DUE:
            continue
        after, is_leased = lanes.lease(lane, new)
        changed, state = user.put(at.kind, after), at.state._replace(next_fence=0)
        if not is_leased:
            yield at.goes("finds a lane that is held", IDLE)._replace(after=at.state.put_user(nr, changed))
            continue
        for taken_over in _ways_to_take(at.state, lane):
            asking = Slot("leasing", nr, new, taken_over, at.setting.quantum)
            what = f"{'takes over' if taken_over else 'leases'} user {nr + 1}"
            call = ("lease", nr, at.kind, at.nr, new, taken_over)
            leased = asking._replace(stage="begin")
            yield from at._replace(state=state, slot=asking).calls(what, call, changed, taken_over, leased)


def _ways_to_take(state: State, lane: Lane) -> tuple[bool, ...]:
    """Answer whether the holder counts as gone: one that lives may be heard, or not be."""
    if not lane.lock:
        return (False,)
    return (False, True) if state.holder(lane.lock) else (True,)


def _lease_again(at: At) -> Iterator[Step]:
    slot, done = at.slot, lanes.lease_again(at.lane, at.slot.lease)
    call, after = ("lease_again", slot.user, at.kind, at.nr), slot._replace(stage="begin") if done[1] else IDLE
    return at.asks_lane("asks again for its lease", call, done, after)


def _jobs(at: At) -> Iterator[Step]:
    jobs = at.lane.jobs
    slot = at.slot._replace(stage="states", work=jobs) if jobs else finishes(at.slot)
    yield at.goes("reads the lane's jobs", slot, None, ("jobs", at.slot.user, at.kind), jobs)


def _states(at: At) -> Iterator[Step]:
    _, answer = records.states(at.user, at.kind, at.slot.work)
    done, is_waiting = answer
    slot = finishes(at.slot._replace(done=done), has_more=is_waiting)
    yield at.goes("reads what became of them", slot, None, ("states", at.slot.user, at.kind, at.slot.work), answer)


def _finish(at: At) -> Iterator[Step]:
    slot, (has_more, may_go_on, pause) = at.slot, at.slot.work
    done = lanes.finish(at.lane, slot.lease, slot.done, has_more=has_more, may_go_on=may_go_on, pause=pause)
    call = ("finish", slot.user, at.kind, slot.lease, slot.done, *slot.work)
    after = slot._replace(stage="begin", work=False, done=NONE) if done[1] == "go_on" else ended(slot)
    return at.asks_lane("finishes", call, done, after)


def _park(at: At) -> Iterator[Step]:
    slot = at.slot
    call = ("park", slot.user, at.kind, slot.lease, slot.done)
    return at.asks_lane("parks", call, lanes.park(at.lane, slot.lease, slot.done), ended(slot))


# turns


def _begin_turn(at: At) -> Iterator[Step]:
    slot, taken_over = at.slot, at.slot.work
    user, begun = records.begin_turn(at.user, fence_of(slot.lease), at.setting.batch_max, taken_over=taken_over)
    call = ("begin_turn", slot.user, slot.lease, taken_over)
    return at.calls("begins a turn", call, user, begun, _with_turn(slot, begun))


def _with_turn(slot: Slot, begun: Begun) -> Slot:
    if begun.outcome == "turn":
        return slot._replace(stage="handle", work=begun.turn)
    if begun.outcome == "fenced":
        return parks(slot)
    slot = slot._replace(tells=slot.tells.union(begun.outbox))
    return finishes(slot, pause=True) if begun.outcome == "paused" else looks(slot)


def _settle_turn(at: At) -> Iterator[Step]:
    turn: Turn = at.slot.work
    if at.state.left.failures and not turn.fails:
        raised = at.goes("raises in its handler", at.slot._replace(work=turn._replace(fails=True)))
        yield raised._replace(after=raised.after.spend("failures"))
    left = at.slot.left - 1
    goes_on = left > 0 and not turn.fails
    fence, setting = fence_of(at.slot.lease), at.setting
    user, settled = records.settle_turn(
        at.user, fence, turn, setting.batch_max, goes_on=goes_on, answers=setting.answers
    )
    call = ("settle_turn", at.slot.user, at.slot.lease, turn, goes_on)
    yield from at.calls(
        "settles its turn", call, user, settled, _after_turn(at.slot._replace(left=left), turn, settled)
    )


def _after_turn(slot: Slot, turn: Turn, settled: Settled) -> Slot:
    slot = slot._replace(tells=slot.tells.union(settled.outbox))
    if settled.outcome in {"committed", "already"}:
        slot = slot._replace(done=slot.done.union(turn.seqs))
    if settled.next is not None:
        return _with_turn(slot, settled.next)
    if settled.outcome == "fenced":
        return ended(slot)
    if settled.outcome in {"stale", "retry"}:
        return parks(slot)
    return finishes(slot, has_more=settled.has_more, may_go_on=slot.left > 0)


STAGES = {
    "idle": _lease,
    "leasing": _lease_again,
    "jobs": _jobs,
    "states": _states,
    "finish": _finish,
    "park": _park,
    "handle": _settle_turn,
    "send": sends.send,
    "sending": lambda _at: iter(()),
    "taken": sends.taken,
    "find out": sends.find_out,
    "settle": sends.settle_send,
    "begin": lambda at: _begin_turn(at) if at.kind == IN else sends.begin_send(at),
}
"""What a slot does at each stage."""
