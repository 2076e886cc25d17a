"""All that happens beside the workers: webs, the reconciler, time, the network, the provider; and what breaks."""

from collections.abc import Iterator

from tests.explore import lanes, records, workers
from tests.explore.settings import Setting
from tests.explore.state import IDLE, IN, KINDS, OUT, Place, State, User, Worker, newest_fence
from tests.explore.steps import Call, Step


def steps(state: State, setting: Setting) -> Iterator[Step]:
    """List everything that may happen next."""
    for nr in range(len(state.workers)):
        for kind in KINDS:
            yield from workers.steps_of(state, setting, nr, kind)
        yield from _breaks_down(state, nr)
        yield from _renews(state, nr)
    for nr, user in enumerate(state.users):
        yield from _webs(state, setting, nr, user)
        yield from _operator(state, nr, user)
        yield from _provider(state, nr, user)
        for kind in KINDS:
            yield from _leases_end(state, nr, user, kind)
    yield from _requests(state)
    yield from _reconciler(state)
    yield from _redis_forgets(state)


# webs and the reconciler


def _webs(state: State, setting: Setting, nr: int, user: User) -> Iterator[Step]:
    if user.said < setting.messages:
        after, seq = records.accept(user)
        stored = after._replace(accepted=after.accepted | {seq})
        yield Step("a web", f"accepts message {seq}", state.put_user(nr, stored), ("accept", nr, seq), seq)
    for seq in sorted(user.accepted):
        lane, new = lanes.enqueue(user.turns, (seq,))
        put, rest = user._replace(turns=lane), user.accepted - {seq}
        call: Call = ("enqueue", nr, IN, [seq])
        enqueued = state.put_user(nr, put._replace(accepted=rest))
        yield Step("a web", f"puts message {seq} on the lane", enqueued, call, new)
        if state.left.losses:
            unheard = state.put_user(nr, put).spend("losses")
            yield Step("a web", f"puts message {seq} on the lane, and does not hear the answer", unheard, call, new)
        if state.left.crashes:
            dead = user._replace(accepted=rest, unanswered=user.unanswered | {seq})
            yield Step("a web", f"dies with message {seq}", state.put_user(nr, dead).spend("crashes"))
    for seq in sorted(user.unanswered):
        _, is_waiting = records.accept_again(user, seq)
        again = user._replace(unanswered=user.unanswered - {seq})
        if is_waiting:
            again = again._replace(accepted=user.accepted | {seq})
        call = ("accept_again", nr, seq)
        yield Step("a web", f"accepts message {seq} again", state.put_user(nr, again), call, is_waiting)


def _reconciler(state: State) -> Iterator[Step]:
    if state.found:
        kind, nr = state.found
        lane, answer = lanes.bring_back(state.users[nr].lane(kind))
        after = state._replace(found=None).put_user(nr, state.users[nr].put(kind, lane))
        yield Step("the reconciler", f"brings back user {nr + 1} ({kind})", after, ("bring_back", nr, kind), answer)
        return
    for nr, user in enumerate(state.users):
        for kind in KINDS:
            if user.lane(kind).place is not Place.ABSENT or not user.waiting(kind):
                continue
            tells = kind == OUT and any(one.tells and one.user == nr for _, _, one in state.slots())
            is_early = tells or (kind == IN and bool(user.accepted))
            if state.left.laps or not is_early:
                after = state._replace(found=(kind, nr))
                yield Step(
                    "the reconciler", f"finds user {nr + 1} ({kind})", after.spend("laps") if is_early else after
                )


# an operator


def _operator(state: State, nr: int, user: User) -> Iterator[Step]:
    """Pause a user and resume him: in Postgres first, then Redis is told."""
    act = "resume" if user.is_paused else "pause"
    if user.telling:
        lane, answer = TELLING[user.telling](user.turns)
        told = user._replace(turns=lane, telling="")
        call: Call = (f"tell_{user.telling}", nr)
        yield Step("an operator", f"tells Redis: {user.telling} user {nr + 1}", state.put_user(nr, told), call, answer)
    elif user.is_paused or (user.inbox and state.left.pauses):
        after, answer = DOING[act](user)
        state = state if user.is_paused else state.spend("pauses")
        done = state.put_user(nr, after._replace(telling=act))
        yield Step("an operator", f"{act}s user {nr + 1}", done, (f"{act}_user", nr), answer)


DOING = {"pause": records.pause_user, "resume": records.resume_user}
TELLING = {"pause": lanes.pause, "resume": lanes.resume}


# time


def _leases_end(state: State, nr: int, user: User, kind: str) -> Iterator[Step]:
    lane = user.lane(kind)
    if not lane.is_live:
        return
    lives = state.holder(lane.lock) is not None
    if not lives or state.left.expiries:
        after = state.put_user(nr, user.put(kind, lanes.run_out(lane)))
        after = after.spend("expiries") if lives else after
        yield Step("time", f"ends a lease of user {nr + 1} ({kind})", after, ("run_out", nr, kind))


def _renews(state: State, nr: int) -> Iterator[Step]:
    """Let a worker's leases live on that have run out and were not taken over, all at once."""
    after, renewed = state, list[tuple[int, str, int]]()
    for kind in KINDS:
        slot = state.workers[nr].slot(kind)
        lane = state.users[slot.user].lane(kind)
        if slot.lease and lane.lock == slot.lease and not lane.is_live:
            lane, _ = lanes.renew(lane, slot.lease)
            after = after.put_user(slot.user, after.users[slot.user].put(kind, lane))
            renewed.append((slot.user, kind, slot.lease))
    if renewed:
        yield Step(f"worker {nr + 1}", "renews its leases", after, ("renew", renewed))


def _requests(state: State) -> Iterator[Step]:
    """Let the time of a request be over; never before it has ended."""
    for nr, user in enumerate(state.users):
        for reply in user.replies:
            stages = {
                slot.stage
                for _, _, slot in state.slots()
                if slot.stage in {"send", "sending"} and (slot.user, *slot.work[:2]) == (nr, reply.seq, reply.requests)
            }
            if reply.is_over or reply.seq in user.flying or "sending" in stages:
                continue
            is_slow = "send" in stages
            if state.left.expiries if is_slow else reply.state == "unknown":
                after = state.put_user(nr, user.put_reply(reply._replace(is_over=True)))
                after = after.spend("expiries") if is_slow else after
                call = ("over", nr, reply.seq, reply.requests)
                yield Step("time", f"passes until the request of reply {reply.seq} is over", after, call)


# the provider


def _provider(state: State, nr: int, user: User) -> Iterator[Step]:
    for which, seq in enumerate(user.flying):
        rest = user._replace(flying=user.flying[:which] + user.flying[which + 1 :])
        taken = rest._replace(received=(*user.received, seq))
        yield Step("the provider", f"takes reply {seq}", state.put_user(nr, taken))
        yield Step("the network", f"loses reply {seq}", state.put_user(nr, rest))
    for at, kind, slot in state.slots():
        if slot.stage == "sending" and slot.user == nr:
            seq = slot.work.seq
            taken = user._replace(received=(*user.received, seq))
            after = state.put_user(nr, taken).put_slot(at, kind, slot._replace(stage="taken"))
            yield Step("the provider", f"takes reply {seq}", after)
            if state.left.losses:
                unknown = slot._replace(stage="settle", work=slot.work._replace(fate="unknown"))
                yield Step("the network", f"loses reply {seq}", state.put_slot(at, kind, unknown).spend("losses"))


# what breaks


def _breaks_down(state: State, nr: int) -> Iterator[Step]:
    """Kill a worker; another one starts in its place. What it was sending may still arrive."""
    worker = state.workers[nr]
    if worker == Worker() or not state.left.crashes:
        return
    after = state._replace(workers=(*state.workers[:nr], Worker(), *state.workers[nr + 1 :]))
    if worker.sends.stage == "sending":
        user = state.users[worker.sends.user]
        after = after.put_user(worker.sends.user, user._replace(flying=(*user.flying, worker.sends.work.seq)))
    yield Step(f"worker {nr + 1}", "dies", after.spend("crashes"), ("die", nr))


def _redis_forgets(state: State) -> Iterator[Step]:
    users = tuple(user._replace(turns=lanes.forget(), sends=lanes.forget()) for user in state.users)
    if users == state.users:
        return
    newest = newest_fence(state)
    # A lease call whose answer is forgotten, too, is a new one.
    workers = tuple(Worker(*(IDLE if one.stage == "leasing" else one for one in worker)) for worker in state.workers)
    state = state._replace(users=users, workers=workers)
    if state.left.flushes:
        after = state._replace(next_fence=0).spend("flushes")  # its counter begins with the time
        yield Step("Redis", "forgets everything", after, ("forget",))
    if state.left.rewinds and newest:
        after = state._replace(next_fence=newest).spend("rewinds")
        yield Step("Redis", "fails over to one that has not seen the newest lease", after, ("rewind", newest))
