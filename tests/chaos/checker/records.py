"""What histories say, as values: one class a kind of event. The fields are those of the table in `history.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple


class Lease(NamedTuple):
    at: float
    since: float
    pid: int
    user_id: str
    token: str
    fence: int
    taken_over: bool


class Begin(NamedTuple):
    at: float
    since: float
    pid: int
    user_id: str
    fence: int
    outcome: str
    message_id: str | None
    seq: int | None
    session_id: str | None
    session_status: str | None
    deaths: int | None
    seqs: list[int] | None = None
    superseded: int | None = None

    @property
    def number(self) -> int:
        """The number of the batch's first; of a begin that is a turn."""
        assert self.seq is not None
        return self.seq


class Commit(NamedTuple):
    at: float
    since: float
    pid: int
    user_id: str
    fence: int
    message_id: str
    session_id: str
    outcome: str


class Fail(NamedTuple):
    at: float
    since: float
    pid: int
    user_id: str
    fence: int
    message_id: str
    session_id: str
    outcome: str


class Finish(NamedTuple):
    at: float
    since: float
    pid: int
    user_id: str
    token: str
    released: str


class Park(NamedTuple):
    at: float
    since: float
    pid: int
    user_id: str
    token: str
    delay_s: float
    is_parked: bool


class OutLease(Lease):
    """A lease of a lane of replies."""

    __slots__ = ()


class OutFinish(Finish):
    """The same of its release."""

    __slots__ = ()


class OutPark(Park):
    """The same."""

    __slots__ = ()


class Mark(NamedTuple):
    """What `begin_sends` found to be next on a lane of replies: `send` marks a reply before its request."""

    at: float
    since: float
    pid: int
    user_id: str
    fence: int
    outcome: str
    reply_id: str | None
    attempt: int | None
    wait_ms: int | None


class Settle(NamedTuple):
    """What was to be stored of a request, and whether it was."""

    at: float
    since: float
    pid: int
    user_id: str
    fence: int
    reply_id: str
    attempt: int
    deed: str
    outcome: str


class Seen(NamedTuple):
    """A reply that became visible to its user, by the journal of the providers' fakes."""

    at: float
    n: int
    """The number of the request that made it visible, in the order in which they were received."""
    key: str | None
    copy: int
    """1; of a second one that the provider itself has made of one request, 2."""
    text: str


class Call(NamedTuple):
    """A question to a model (`begin`), that the whole answer is here (`answered`), or that it is kept (`kept`)."""

    at: float
    pid: int
    user_id: str
    batch: str
    key: str
    phase: str


class Read(NamedTuple):
    at: float
    user_id: str
    replies: list[Mapping[str, Any]]


class Posted(NamedTuple):
    """One side of one try of a delivery: `what` is send, the status of its answer, or why there was none."""

    at: float
    external_id: str
    delivery: str
    what: str
    web: str = ""
    """To which it was sent."""


class Stall(NamedTuple):
    since: float
    until: float
    who: str
    pid: int


class Load(NamedTuple):
    """How many threads were ready to run, for each core of the machine."""

    since: float
    until: float
    ready_each: float


@dataclass(slots=True)
class Run:
    """One run of the handler."""

    at: float
    pid: int
    run: str
    user_id: str
    sender: str
    message_id: str
    seq: int
    session_id: str
    text: str
    members: frozenset[str] = frozenset()
    """The ids of its batch's messages, those included that it took in."""
    newer_at: float = inf
    """When it first asked for what had arrived since."""
    order: str | None = None
    """What the storm ordered it to do."""
    seen_at: float = 0.0
    """Its last sign of life."""
    ended_at: float | None = None
    result: str | None = None

    @property
    def until(self) -> float:
        """Until when it surely ran: of one whose process died, its last sign of life."""
        return self.seen_at if self.ended_at is None else self.ended_at


@dataclass(slots=True)
class Command:
    """What the operator had done, however often it took."""

    at: float
    user_id: str
    name: str
    message_id: str | None
    after_seq: int
    ended_at: float = inf
    is_done: bool = False
    """Whether the service answered."""
    answer: Any = None


@dataclass(slots=True)
class Fault:
    """What was done to the service."""

    at: float
    span: int
    name: str
    target: str
    until: float = inf
    pids: tuple[int, ...] = ()
    """The processes that were killed, frozen, or given an order."""
    survived: tuple[int, ...] = ()
    """Those of them that could not work, and that nobody replaced in time."""
    user_id: str | None = None
    """The user whose row was locked."""
    is_missed: bool = False
    """Whether nothing was struck."""
    detail: str = ""
    """What of the target was struck."""
    flushed_at: float | None = None
    """When Redis was made to forget everything, of a fault that does more than that."""


@dataclass(slots=True)
class Letter:
    """One message as the provider knows it, over all its deliveries."""

    channel: str
    sender: str
    external_id: str
    text: str
    sent_at: float
    acked_at: float = inf
    """When it was answered 2xx for the first time."""
    answers: tuple[Mapping[str, Any], ...] = ()
    """What the answers told of it: `user_id`, `message_id`, `seq`, `duplicate`."""
    conflicting_text: str | None = None


Said = Lease | Begin | Commit | Fail | Finish | Park | Mark | Settle | Read | Posted | Run | Command | Call
"""What a history says about one user."""
