"""The promises, as the protocol must keep them: asked of every state, of every step, and of where all ends."""

from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.explore.records import Turn
from tests.explore.settings import Setting
from tests.explore.state import IDLE, KINDS, Place, State, User
from tests.explore.steps import Step

Broken = Iterator[str]


def broken_by(state: State, setting: Setting) -> str | None:
    """Name the first promise that a state breaks."""
    for user in state.users:
        for rule in OF_USERS:
            for word in rule(user, setting):
                return word
    return next(_turns(state, setting), None)


def broken_on_the_way(before: State, step: Step) -> str | None:
    """Name the first promise that a step breaks."""
    if step.call[:1] == ("settle_turn",) and step.answer.outcome == "fenced":
        _, nr, lease, *_ = step.call
        if before.users[nr].turns.lock == lease:
            return "who holds a lane is not refused"
    for nr, user in enumerate(before.users):
        after = step.after.users[nr]
        if after is not user:
            for word in _changes(user, after, step):
                return word
    return None


# of states


def _order(user: User, _setting: Setting) -> Broken:
    """Each message is processed once, in its order, and none is lost: what is not done waits."""
    if user.done != tuple(range(1, len(user.done) + 1)):
        yield "messages are processed once, in their order"
    if tuple(row.seq for row in user.inbox) != tuple(range(len(user.done) + 1, user.said + 1)):
        yield "what was accepted is done or waits"


def _replies(user: User, setting: Setting) -> Broken:
    """Each reply reaches the person once, in its order, but by the channel's rule; and what is said of it is true."""
    seen = user.received if setting.on_unknown != "resend" else tuple(dict.fromkeys(user.received))
    if not all(one < other for one, other in pairwise(seen)):
        yield "replies arrive once, in their order"
    for reply in user.replies:
        if reply.state == "sent" and reply.seq not in user.received:
            yield "what is called sent has arrived"
        if reply.state in {"given up", "failed"} and setting.on_unknown == "ask" and reply.seq in user.received:
            yield "what the provider has is not given up"


def _lanes(user: User, _setting: Setting) -> Broken:
    """A lane that somebody holds stands at the end of the lease; one that has a lock or a job stands somewhere."""
    if user.turns.place is Place.PAUSED and not user.is_paused and not user.telling:
        yield "a lane is paused only while its user is"
    for kind in KINDS:
        lane = user.lane(kind)
        if lane.is_live and lane.place not in {Place.LATER, Place.PAUSED}:
            yield "a lane that is held is not due"
        if lane.place is Place.ABSENT and (lane.lock or lane.jobs):
            yield "a lane with a job is found"


def _turns(state: State, setting: Setting) -> Broken:
    """Who begins a batch again gets the same one; a failure is counted once."""
    raised = setting.budget.failures - state.left.failures
    if sum(row.attempts for user in state.users for row in user.inbox) > raised:
        yield "a failure is counted once"
    for _, _, slot in state.slots():
        if isinstance(slot.work, Turn):
            user = state.users[slot.user]
            is_current = slot.work.version == len(user.done) and user.promised
            if is_current and slot.work.seqs[-1] != user.promised:
                yield "a batch that begins again has the members that it had"


OF_USERS: tuple[Callable[[User, Setting], Broken], ...] = (_order, _replies, _lanes)
UPWARDS = {"pending": 0, "sending": 0, "unknown": 0, "given up": 1, "failed": 1, "sent": 2}
"""What becomes of a reply: nothing brings it back."""


# of steps


def _changes(user: User, after: User, step: Step) -> Broken:
    if after.writer < user.writer:
        yield "no turn writes after its successor has written"
    for old, new in zip(user.replies, after.replies, strict=False):
        if UPWARDS[new.state] < UPWARDS[old.state]:
            yield "a reply's state moves upwards only"
    for kind in KINDS:
        lane, then, name = user.lane(kind), after.lane(kind), step.call[0] if step.call else ""
        if lane.is_live and then.lock != lane.lock and name in {"lease", "enqueue", "bring_back"}:
            yield "nobody takes a lane that is held"
        if name == "finish" and lane.lock and lane.lock != step.call[3] and then != lane and step.call[2] == kind:
            yield "only its holder gives a lane up"
        if name == "finish" and then.place is Place.ABSENT and lane.jobs.intersection(after.waiting(kind)):
            yield "a lane is forgotten only when nothing waits on it"


# of where all ends


def is_drained(state: State, setting: Setting) -> bool:
    """Whether nothing is left to do."""
    return all(
        user.said == setting.messages
        and not (user.inbox or user.accepted or user.unanswered or user.flying or user.waiting("out"))
        and user.turns.place is user.sends.place is Place.ABSENT
        and not (user.is_paused or user.telling)
        for user in state.users
    ) and not any(slot != IDLE for _, _, slot in state.slots())
