"""The explorer's workers beside the real ones: given the same answers, both make the same call next.

What a script or a function answers is compared by walks (`test_explored.py`); this is what a slot makes of it. The real
one also lifts the counter of fences once it was fenced, and buries what is dead: neither is explored.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import product
from threading import Event
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx2
import pytest

from onelane import outcomes
from onelane.channels.sender import OnUnknown
from onelane.config import Settings
from onelane.lanes.holding import Holding
from onelane.model import Failure, Lease, TurnRead
from onelane.outbox import reply
from onelane.turns.handling import Handled
from onelane.turns.shift import Shift
from onelane.turns.workplace import Workplace
from tests import loops
from tests.explore import sends, workers
from tests.explore.records import Begun, Request, Settled, Turn
from tests.explore.state import Slot
from tests.shipping import KeptRecords, PlainSender, Trip, ago, waiting

QUANTUM = 2
SLOT = Slot("begin", 0, 2, left=QUANTUM)
MESSAGES, REPLIES = [uuid4() for _ in range(9)], [uuid4() for _ in range(9)]
FIRST, SECOND = Turn((1,), 0, 0), Turn((2, 3), 1, 0)
NOTHING_NEXT = (
    Begun("idle"), Begun("idle", outbox=(4, 5)), Begun("paused"), Begun("paused", outbox=(4,)), Begun("fenced"),
)  # fmt: skip
BEGUN = (None, Begun("turn", SECOND), *NOTHING_NEXT)
SETTLED = tuple(
    Settled(outcome, has_more, outbox, next=following)
    for outcome, has_more, outbox, following in product(
        ("committed", "already", "fenced", "stale", "retry"), (False, True), ((), (4, 5)), BEGUN
    )
    if following is None or outcome in {"committed", "already"}
)
Call = tuple[Any, ...]


def _named(ids: Iterable[UUID], known: Sequence[UUID]) -> frozenset[int]:
    return frozenset(known.index(one) for one in ids)


def _answered(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


class Lanes:
    """Keeps what a worker asks of its lane, in the explorer's words."""

    def __init__(self, known: Sequence[UUID]) -> None:
        self.known = known
        self.calls: list[Call] = []

    def finish_soon(self, _lease: Lease, done: Sequence[UUID] = (), **how: Any) -> Future[Any]:
        asked = tuple(bool(how.get(name)) for name in ("has_more", "may_go_on", "pause"))
        self.calls.append(("finish", _named(done, self.known), asked))
        return _answered("released")

    def park_soon(self, _lease: Lease, _delay_s: float, done: Sequence[UUID] = (), **_: Any) -> Future[Any]:
        self.calls.append(("park", _named(done, self.known)))
        return _answered(True)

    def jobs_soon(self, _user: UUID) -> Future[Any]:
        self.calls.append(("jobs",))
        return _answered([])

    def enqueue_soon(self, _user: UUID, ids: Sequence[UUID]) -> list[Future[Any]]:
        self.calls += [("enqueue", _named(ids, self.known))] if ids else []
        return []

    def raise_fence_soon(self, fence: int) -> Future[Any]:
        return _answered(fence)


class Records:
    """Answers as it is told, and keeps what it is asked."""

    def __init__(self, begun: Begun, settled: Iterable[Settled]) -> None:
        self.begun, self.settled = begun, deque(settled)
        self.asked: list[Call] = []

    async def begin(self, *_: Any, **__: Any) -> outcomes.Begun:
        self.asked.append(("begin",))
        return _real_begun(self.begun)

    async def commit(self, _lease: Lease, turn: TurnRead, *_: Any, goes_on: bool) -> outcomes.Settled:
        return self._settle(turn, fails=False, goes_on=goes_on)

    async def fail(self, _lease: Lease, turn: TurnRead, *_: Any, **__: Any) -> outcomes.Settled:
        return self._settle(turn, fails=True, goes_on=False)

    def _settle(self, turn: TurnRead, *, fails: bool, goes_on: bool) -> outcomes.Settled:
        self.asked.append(("settle", tuple(message.seq for message in turn.messages), fails, goes_on))
        return _real_settled(self.settled.popleft())

    async def hold(self, *_: Any) -> None: ...


def _real_turn(turn: Turn) -> TurnRead:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    messages = [SimpleNamespace(id=MESSAGES[seq], seq=seq, deaths=0, accepted_at=at) for seq in turn.seqs]
    named = SimpleNamespace(id=uuid4(), channel="demo")
    return TurnRead.model_construct(version=turn.version, messages=tuple(messages), user=named, session=named)


def _real_begun(begun: Begun) -> outcomes.Begun:
    return outcomes.Begun.model_construct(
        outcome=outcomes.BeginOutcome(begun.outcome),
        fence=1,
        turn=begun.turn and _real_turn(begun.turn),
        outbox=tuple(REPLIES[nr] for nr in begun.outbox),
    )


def _real_settled(settled: Settled) -> outcomes.Settled:
    return outcomes.Settled.model_construct(
        outcome=outcomes.SettleOutcome(settled.outcome),
        has_more=settled.has_more,
        session_ms=0,
        outbox=tuple(REPLIES[nr] for nr in settled.outbox),
        next=settled.next and _real_begun(settled.next),
    )


def calls_of(begun: Begun, settled: Sequence[Settled], *, fails: bool = False) -> tuple[list[Call], list[Call]]:
    """Let a real worker have these answers; return what it asked Postgres, and then of its lanes."""
    settings = Settings(database_url="postgresql://", redis_url="redis://", quantum_turns=QUANTUM)

    async def run(turn: TurnRead, *_: Any, **__: Any) -> tuple[TurnRead, Handled]:
        return turn, Handled({}, Failure(error="E") if fails else None)

    handling = SimpleNamespace(
        host=SimpleNamespace(clock=lambda: 0.0),
        isolation=SimpleNamespace(place=lambda: nullcontext(True)),
        bots=SimpleNamespace(answers_failures=lambda _turn: False),
        pace_ms=lambda _turn: 0,
        memory=lambda *_: None,
        run=run,
    )
    records, lanes, out_lanes = Records(begun, settled), Lanes(MESSAGES), Lanes(REPLIES)
    parts = (settings, lanes, out_lanes, records, handling, Event(), None)
    loops.run(Shift(Holding(Lease(user_id=uuid4(), token="t", fence=1)), Workplace(*cast("Any", parts))).run())
    return records.asked, [*out_lanes.calls, *lanes.calls]


def explored(begun: Begun, settled: Sequence[Settled], *, fails: bool = False) -> tuple[list[Call], list[Call]]:
    """Tell the same of the explorer's worker."""
    asked: list[Call] = [("begin",)]
    slot, left = workers._with_turn(SLOT, begun), deque(settled)
    while slot.stage == "handle":
        turn = slot.work._replace(fails=fails)
        slot = slot._replace(left=slot.left - 1)
        asked.append(("settle", turn.seqs, fails, slot.left > 0 and not fails))
        slot = workers._after_turn(slot, turn, left.popleft())
    return asked, [*([("enqueue", slot.tells)] if slot.tells else []), *_leaves(slot)]


def _leaves(slot: Slot) -> Iterator[Call]:
    """Tell what a slot asks of its lane at last: one on whose lane nothing is finds no jobs."""
    if slot.stage == "finish":
        yield "finish", slot.done, slot.work
    elif slot.stage == "park":
        yield "park", slot.done
    elif slot.stage == "jobs":
        yield from (("jobs",), ("finish", frozenset(), (False, False, False)))


def told_once(calls: list[Call]) -> list[Call]:
    """Join what is said to the other lane: the real worker says it at once, the explorer's before it goes."""
    news = frozenset(one for call in calls if call[0] == "enqueue" for one in call[1])
    return [*([("enqueue", news)] if news else []), *(call for call in calls if call[0] != "enqueue")]


@pytest.mark.parametrize("begun", NOTHING_NEXT, ids=str)
def test_a_worker_without_a_turn_leaves_as_it_is_explored(begun: Begun) -> None:
    asked, calls = calls_of(begun, ())
    assert (asked, told_once(calls)) == explored(begun, ())


@pytest.mark.parametrize("settled", SETTLED, ids=str)
def test_a_worker_goes_on_after_a_turn_as_it_is_explored(settled: Settled) -> None:
    """The next turn, if there is one, is its last: it has had its quantum."""
    fails, last = settled.outcome == "retry", Settled("committed", has_more=True, outbox=(6,))
    asked, calls = calls_of(Begun("turn", FIRST), [settled, last], fails=fails)
    assert (asked, told_once(calls)) == explored(Begun("turn", FIRST), [settled, last], fails=fails)


def test_a_transcription_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    settled, last = Settled("committed", has_more=True), Settled("committed", has_more=True)
    monkeypatch.setattr(workers, "finishes", lambda slot, **_: slot._replace(stage="finish", work=(False,) * 3))
    asked, calls = calls_of(Begun("turn", FIRST), [settled, last])
    assert (asked, told_once(calls)) != explored(Begun("turn", FIRST), [settled, last])
    monkeypatch.setattr(sends, "parks", lambda slot: slot._replace(stage="jobs", work=None))
    lost, begun = Settled("settled", has_more=True, state="unknown"), Begun("send", request=Request(1, 1))
    assert sends_of(begun, [lost], SENT["unknown"][1]) != explored_sends(begun, [lost], "unknown")


# replies


class Sends(KeptRecords):
    """An outbox that answers as it is told, and keeps what it is asked."""

    def __init__(self, begun: Begun, settled: Iterable[Settled]) -> None:
        super().__init__()
        self.told, self.settled = begun, deque(settled)
        self.asked: list[Call] = [("begin",)]

    async def begin(self, *_: Any, **__: Any) -> reply.Begun:
        return _real_send(self.told)

    async def settle(self, _lease: Lease, one: reply.Waiting, fate: reply.Fate, *, goes_on: bool) -> reply.Settled:
        self.asked.append(("settle", one.seq, str(fate.deed), goes_on))
        said = self.settled.popleft()
        following = said.next and _real_send(said.next)
        return reply.Settled(
            outcome=reply.SettleOutcome(said.outcome), state=said.state, has_more=said.has_more, next=following
        )


class SendLanes(Lanes):
    """Those of replies."""

    def bury_soon(self, *_: Any) -> Future[Any]:
        return _answered(True)


def _real_send(begun: Begun) -> reply.Begun:
    """Hand out a reply; of one of which nobody knows, the request is long over."""
    one = begun.request
    since = {"sending_at": ago(1_000), "first_sent_at": ago(1_000)} if begun.outcome == "unknown" else {}
    read = waiting(id=REPLIES[one.seq], seq=one.seq, attempt=one.attempt, **since) if one else None
    return reply.Begun(outcome=reply.BeginOutcome(begun.outcome), fence=1, reply=read)


async def nothing_there(_request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, json={"found": None})


async def broken(_request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(500, json={})


SENT = {
    "accepted": ("send", PlainSender()),
    "unknown": ("send", PlainSender(broken)),
    "absent": ("unknown", PlainSender(nothing_there, OnUnknown.ASK)),
    "resend": ("unknown", PlainSender(on_unknown=OnUnknown.RESEND)),
    "give_up": ("unknown", PlainSender(on_unknown=OnUnknown.LEAVE)),
}
"""How a reply is found, and by whom it is sent or looked up, that each of these becomes of it."""
STATES = {"accepted": "sent", "unknown": "unknown", "absent": "pending", "resend": "pending", "give_up": "unknown"}
SETTLED_SENDS = tuple(
    (fate, Settled(outcome, has_more, state=STATES[fate], next=following))
    for fate, outcome, has_more, following in product(
        SENT, ("settled", "already", "fenced"), (False, True), (None, Begun("idle"), Begun("fenced"))
    )
    if outcome != "fenced" or (fate in {"absent", "resend", "give_up"} and following is None)
)


def sends_of(begun: Begun, settled: Sequence[Settled], sender: PlainSender) -> tuple[list[Call], list[Call]]:
    """Let a real worker have these answers about replies; return what it asked."""
    records, lanes = Sends(begun, settled), SendLanes(REPLIES)
    trip = Trip(sender=sender, records=records, quantum_turns=QUANTUM)
    trip.lanes = cast("Any", lanes)
    trip.run()
    return records.asked, lanes.calls


def explored_sends(begun: Begun, settled: Sequence[Settled], fate: str = "") -> tuple[list[Call], list[Call]]:
    """Tell the same of the explorer's worker."""
    asked: list[Call] = [("begin",)]
    slot, left = sends._with_reply(SLOT, begun), deque(settled)
    while slot.stage in {"send", "find out"}:
        request = slot.work._replace(fate=fate)
        slot = slot._replace(left=slot.left - 1)
        asked.append(("settle", request.seq, fate, slot.left > 0))
        slot = sends._after_send(slot, request, left.popleft())
    return asked, list(_leaves(slot))


@pytest.mark.parametrize("outcome", ["idle", "fenced"])
def test_a_worker_without_a_reply_leaves_as_it_is_explored(outcome: str) -> None:
    assert sends_of(Begun(outcome), (), PlainSender()) == explored_sends(Begun(outcome), ())


@pytest.mark.parametrize(("fate", "settled"), SETTLED_SENDS, ids=str)
def test_a_worker_goes_on_after_a_reply_as_it_is_explored(fate: str, settled: Settled) -> None:
    found, sender = SENT[fate]
    begun = Begun(found, request=Request(1, 1))
    assert sends_of(begun, [settled], sender) == explored_sends(begun, [settled], fate)


def test_a_worker_sends_the_next_reply_as_it_is_explored() -> None:
    following = Begun("send", request=Request(2, 1))
    settled = [Settled("settled", True, state="sent", next=following), Settled("settled", True, state="sent")]
    begun = Begun("send", request=Request(1, 1))
    assert sends_of(begun, settled, PlainSender()) == explored_sends(begun, settled, "accepted")
