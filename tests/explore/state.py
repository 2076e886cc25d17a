"""What the protocol's state is: two servers, the workers' memories, the provider, and what may still go wrong.

Everything is a tuple, so that a state is a key. Left out is what the protocol never asks: texts, sessions, times. Where
a time matters it is a fact: a lease has run out or not, a request is certainly over or not.
"""

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any, Final, NamedTuple

NOBODY: Final = 0
"""No lease. Leases are numbers; `fence_of` tells their fences, which a Redis that has lost its counter gives twice."""
IN, OUT = "in", "out"
KINDS: Final = (IN, OUT)
NONE: Final[frozenset[int]] = frozenset()


def fence_of(lease: int) -> int:
    return lease >> 1


class Place(IntEnum):
    """Where a lane stands in the sorted set."""

    ABSENT = 0
    DUE = 1
    LATER = 2
    """At the end of its lease."""
    PAUSED = 3


class Lane(NamedTuple):
    """One lane in Redis."""

    place: Place = Place.ABSENT
    lock: int = NOBODY
    is_live: bool = False
    """Whether the lock's lease has not run out."""
    is_resumed: bool = False
    """Whether a pause has ended since it was locked."""
    jobs: frozenset[int] = NONE


class Waiting(NamedTuple):
    """A row of the inbox."""

    seq: int
    attempts: int = 0
    last: int = 0
    """Of the batch whose lowest it is, once frozen."""


class Reply(NamedTuple):
    """A reply, by the last message that it answers. In the outbox until it is sent, failed or given up."""

    seq: int
    state: str = "pending"
    lease: int = NOBODY
    requests: int = 0
    is_over: bool = False
    """Whether the newest request certainly is."""
    resent: bool = False

    @property
    def waits(self) -> bool:
        return self.state in {"pending", "sending", "unknown"}


class User(NamedTuple):
    """Everything of one user, on both servers and at the provider."""

    said: int = 0
    inbox: tuple[Waiting, ...] = ()
    done: tuple[int, ...] = ()
    """Processed messages, in the order of their commits. Their number is the user's version."""
    fence: int = 0
    replies: tuple[Reply, ...] = ()
    out_fence: int = 0
    turns: Lane = Lane()
    sends: Lane = Lane()
    is_paused: bool = False
    telling: str = ""
    """What an operator has done, `pause` or `resume`, and is going to tell Redis."""
    accepted: frozenset[int] = NONE
    """Messages that a web has stored and not yet put on the lane."""
    unanswered: frozenset[int] = NONE
    """Messages whose web died in between: their provider delivers them again, some time."""
    flying: tuple[int, ...] = ()
    """Replies whose requests are under way, and whose senders died."""
    received: tuple[int, ...] = ()
    """What the person saw."""
    writer: int = 0
    """The newest fence under which a turn has written, whatever Postgres remembers of it."""
    promised: int = 0
    """The last message of the lowest batch, once a turn has begun it. This and `writer` are for the rules alone."""

    def lane(self, kind: str) -> Lane:
        return self.turns if kind == IN else self.sends

    def put(self, kind: str, lane: Lane) -> "User":
        return self._replace(turns=lane) if kind == IN else self._replace(sends=lane)

    def waiting(self, kind: str) -> tuple[int, ...]:
        """List what Postgres calls waiting."""
        if kind == IN:
            return tuple(row.seq for row in self.inbox)
        return tuple(reply.seq for reply in self.replies if reply.waits)

    def reply(self, seq: int) -> Reply:
        return next(reply for reply in self.replies if reply.seq == seq)

    def put_reply(self, changed: Reply) -> "User":
        return self._replace(replies=tuple(changed if one.seq == changed.seq else one for one in self.replies))


class Slot(NamedTuple):
    """What a worker remembers of one lease: where it is (`workers` says what that means), and with what."""

    stage: str = "idle"
    user: int = 0
    lease: int = NOBODY
    work: Any = None
    """Of the stage: a turn, a request, an answer."""
    left: int = 0
    """Of its quantum."""
    done: frozenset[int] = NONE
    """Whose jobs are to be taken off the lane."""
    tells: frozenset[int] = NONE
    """Replies of which the other lane is still to be told."""


IDLE: Final = Slot()


class Worker(NamedTuple):
    """A worker process: a slot for each kind of lane."""

    turns: Slot = IDLE
    sends: Slot = IDLE

    def slot(self, kind: str) -> Slot:
        return self.turns if kind == IN else self.sends

    def put(self, kind: str, slot: Slot) -> "Worker":
        return self._replace(turns=slot) if kind == IN else self._replace(sends=slot)


class Budget(NamedTuple):
    """What may still go wrong."""

    crashes: int = 1
    """Of workers and webs."""
    expiries: int = 1
    """Of leases whose holder lives, and of requests that it has not begun."""
    flushes: int = 0
    losses: int = 0
    """Of answers, and of requests to the provider."""
    failures: int = 0
    """Of handlers."""
    laps: int = 0
    """Of the reconciler, where somebody else is going to let the lane know."""
    pauses: int = 0
    """By an operator, who resumes the user some time."""
    rewinds: int = 0
    """Of the fence counter: a fail-over to a Redis that has not seen the newest lease."""


class State(NamedTuple):
    """The whole."""

    users: tuple[User, ...]
    workers: tuple[Worker, ...]
    left: Budget
    found: tuple[str, int] | None = None
    """The kind and the user whom the reconciler has found waiting without a lane."""
    next_fence: int = 0
    """That of the newest lease, which the fence counter has forgotten, and gives again; 0: one above all."""

    def put_user(self, which: int, user: User) -> "State":
        return self._replace(users=(*self.users[:which], user, *self.users[which + 1 :]))

    def put_slot(self, which: int, kind: str, slot: Slot) -> "State":
        worker = self.workers[which].put(kind, slot)
        return self._replace(workers=(*self.workers[:which], worker, *self.workers[which + 1 :]))

    def spend(self, what: str) -> "State":
        return self._replace(left=self.left._replace(**{what: getattr(self.left, what) - 1}))

    def slots(self) -> Iterator[tuple[int, str, Slot]]:
        for nr, worker in enumerate(self.workers):
            yield nr, IN, worker.turns
            yield nr, OUT, worker.sends

    def holder(self, lease: int) -> Slot | None:
        return next((slot for _, _, slot in self.slots() if slot.lease == lease and slot.stage != "idle"), None)


def fences_of(part: User | Worker | tuple[Any, ...]) -> Iterator[int]:
    """List the fences in a part of a state."""
    if isinstance(part, User):
        yield from (part.fence, part.writer, part.out_fence, fence_of(part.turns.lock), fence_of(part.sends.lock))
        yield from (fence_of(reply.lease) for reply in part.replies)
    elif isinstance(part, Worker):
        yield from (fence_of(part.turns.lease), fence_of(part.sends.lease))
    else:
        *_, next_fence = part
        yield next_fence


def newest_fence(state: State) -> int:
    return max(fence for part in (*state.users, *state.workers) for fence in fences_of(part))


def next_lease(state: State) -> int:
    return state.next_fence << 1 | 1 if state.next_fence else newest_fence(state) + 1 << 1


def renumbered(state: State, fences: Iterable[int]) -> State:
    """Number fences from 0 on in their order: only that is ever asked of them."""
    new = {fence: nr for nr, fence in enumerate(sorted(fences))}

    def lease(old: int) -> int:
        return new[fence_of(old)] << 1 | old & 1

    def lane(old: Lane) -> Lane:
        return old._replace(lock=lease(old.lock))

    users = tuple(
        user._replace(
            fence=new[user.fence],
            writer=new[user.writer],
            out_fence=new[user.out_fence],
            turns=lane(user.turns),
            sends=lane(user.sends),
            replies=tuple(one._replace(lease=lease(one.lease)) for one in user.replies),
        )
        for user in state.users
    )
    workers = tuple(Worker(*(slot._replace(lease=lease(slot.lease)) for slot in worker)) for worker in state.workers)
    return state._replace(users=users, workers=workers, next_fence=new[state.next_fence])
