"""Replies on their way without Postgres, Redis or a net: what would be asked of them is kept in lists."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, ClassVar, cast
from uuid import UUID, uuid4

import httpx2

from onelane.channels.provider import Provider
from onelane.channels.sender import OnUnknown, Sender
from onelane.channels.sending import LookUp, Outgoing, Piece, Request
from onelane.channels.verdicts import Response, Verdict, Word, absent, accepted, judge_error, unknown
from onelane.config import Channel, Settings
from onelane.lanes.holding import Holding
from onelane.lanes.lanes import Due
from onelane.model import Attachment, Lease
from onelane.outbox import workplace
from onelane.outbox.reply import BeginOutcome, Begun, Deed, Fate, Settled, SettleOutcome, Waiting
from onelane.outbox.shipment import Shipment
from onelane.postgres.breaker import Breaker
from tests import loops

TOKEN = "123456:tokenOfNobody0123"
Handler = Callable[[httpx2.Request], Coroutine[None, None, httpx2.Response]]
STATES = {
    Deed.ACCEPTED: "sent",
    Deed.NEVER: "failed",
    Deed.GIVE_UP: "unknown",
    Deed.UNKNOWN: "unknown",
    Deed.WITHHOLD: "withheld",
}


def waiting(**changes: Any) -> Waiting:
    """A reply that has just been marked."""
    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "id": uuid4(),
        "seq": 1,
        "ordinal": 1,
        "channel": "demo",
        "to": ("+15550100",),
        "text": "hello",
        "attempt": 1,
        "sending_at": now,
        "first_sent_at": now,
        "last_written_at": now,
        "now": now,
    }
    return Waiting(**{**fields, **changes})


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


class PlainSender(Sender):
    """Posts the text, and asks by the key."""

    text_max: ClassVar[int] = 1_000
    absent_after_s: ClassVar[float] = 10

    def __init__(self, handler: Handler | None = None, on_unknown: OnUnknown = OnUnknown.LEAVE) -> None:
        self.handler = handler or self.take
        self.on_unknown = on_unknown  # type: ignore[misc]
        self.window: int | None = None
        self.refusal: Exception | None = None
        self.can_ask = on_unknown is OnUnknown.ASK
        self.taken: list[str] = []

    @property
    def transport(self) -> httpx2.AsyncBaseTransport:
        return httpx2.MockTransport(self.handler)

    async def take(self, request: httpx2.Request) -> httpx2.Response:
        self.taken.append(request.content.decode())
        return httpx2.Response(200, json={"id": f"p{len(self.taken)}"})

    def check(self, said: Piece) -> None: ...

    def request(self, out: Outgoing) -> Request:
        if self.refusal:
            raise self.refusal
        return Request.json("send", f"http://provider.invalid/bot{TOKEN}/send", {"text": out.piece.text})

    def judge(self, out: Outgoing, response: Response) -> Verdict:
        if response.is_success and "id" in response.content():
            return accepted(response.content()["id"])
        return judge_error(type(response.content().get("error", "Odd"), (Exception,), {})())

    def word_of(self, code: str) -> Word | None:
        return None

    def window_s(self, to: Sequence[str]) -> int | None:
        return self.window

    def look_up(self, out: Outgoing, since: datetime, others: Mapping[str, str]) -> LookUp | None:
        return self._looked_up() if self.can_ask else None

    def _looked_up(self) -> LookUp:
        response = yield Request.get("list", "http://provider.invalid/list", {}, {})
        if response.status != 200:
            return unknown(response.status)
        found = response.content().get("found")
        return accepted(found) if found else absent()


class KeptRecords:
    """An outbox of one user in a list."""

    def __init__(self, *replies: Waiting, outcome: BeginOutcome = BeginOutcome.SEND, **begun: Any) -> None:
        self.breaker = Breaker(lambda: None)
        self.rows = deque(replies)
        self.outcome = outcome
        self.begun = begun
        self.fates: list[Fate] = []
        self.went_on: list[bool] = []
        self.failure: Exception | None = None
        self.hears_of_full = True
        self.kept: dict[UUID, dict[str, Any]] = {}
        """The files that replies are sent with."""
        self.after: Callable[[Fate], None] = lambda _: None

    async def begin(self, lease: Lease, cancelled: threading.Event, full: Sequence[str] = ()) -> Begun:
        if self.failure:
            raise self.failure
        if self.hears_of_full and self.rows and self.rows[0].channel in full:
            return Begun(outcome=BeginOutcome.FULL, channel=self.rows[0].channel)
        return self._next(self.outcome)

    async def settle(self, lease: Lease, reply: Waiting, fate: Fate, *, goes_on: bool) -> Settled:
        if self.failure:
            raise self.failure
        self.fates.append(fate)
        self.went_on.append(goes_on)
        self.after(fate)
        state = STATES.get(fate.deed, "pending")
        settled = Settled(outcome=SettleOutcome.SETTLED, state=state)
        if settled.is_terminal(fate):
            self.rows.popleft()
        following = self._next(BeginOutcome.SEND if settled.is_terminal(fate) else BeginOutcome.WAIT)
        return settled.model_copy(update={"has_more": bool(self.rows), "next": following if goes_on else None})

    async def others(self, lease: Lease, reply: Waiting) -> Mapping[str, str]:
        return {}

    async def files(self, ids: list[UUID]) -> list[Any]:
        return [SimpleNamespace(id=one, **self.kept[one]) for one in ids if one in self.kept]

    async def note_uploaded(self, file_id: UUID, uploaded: Attachment) -> None:
        self.kept[file_id] = {"uploaded": uploaded.model_dump(), "data": None}

    async def states(self, user_id: UUID, ids: list[str]) -> list[Any]:
        return []

    async def on_channel(self, channel: str, users: Sequence[UUID]) -> set[UUID]:
        return set()

    def _next(self, outcome: BeginOutcome) -> Begun:
        if outcome in {BeginOutcome.SEND, BeginOutcome.UNKNOWN} and self.rows:
            return Begun(outcome=outcome, reply=self.rows[0])
        if outcome in {BeginOutcome.SEND, BeginOutcome.UNKNOWN}:
            outcome = BeginOutcome.IDLE
        return Begun(outcome=outcome, **self.begun)


class KeptLanes:
    """What happened to the lane."""

    def __init__(self) -> None:
        self.parked: list[float] = []
        self.finished: list[dict[str, Any]] = []
        self.buried: list[tuple[UUID, str]] = []
        self.done: list[UUID] = []

    def park_soon(self, lease: Lease, delay_s: float, done: Sequence[UUID] = ()) -> Future[bool]:
        self.parked.append(delay_s)
        self.done += done
        return _ended(True)

    def finish_soon(self, lease: Lease, done: Sequence[UUID] = (), **how: Any) -> Future[str]:
        self.finished.append(how)
        self.done += done
        return _ended("released")

    def bury_soon(self, lease: Lease, reply_id: UUID, word: str) -> Future[bool]:
        self.buried.append((reply_id, word))
        return _ended(True)

    def raise_fence_soon(self, fence: int) -> Future[int]:
        return _ended(fence)

    def jobs_soon(self, user_id: UUID) -> Future[list[str]]:
        return _ended([])

    def longest_due(self, most: int) -> Due:
        return Due(workers=1, users=[])

    def postpone(self, pauses_s: Mapping[UUID, float]) -> list[bool]:
        return []


class PlainLoop:
    """A clock."""

    def clock(self) -> float:
        return 0.0


class KeptProvider:
    """A provider that only sends."""

    def __init__(self, sender: Sender | None) -> None:
        self.sender = sender


class Trip:
    """One lease of one user's replies."""

    def __init__(
        self, *replies: Waiting, sender: PlainSender | None = None, records: KeptRecords | None = None, **settings: Any
    ) -> None:
        channel = Channel(provider="demo", secrets=["s"], **settings.pop("channel", {}))
        required = {"database_url": "postgres://u@h/d", "redis_url": "redis://h"}
        self.settings = Settings(**{**required, "channels": {"demo": channel}, **settings})
        self.sender = sender or PlainSender()
        self.records = records or KeptRecords(*replies)
        self.lanes = KeptLanes()
        self.stopping = threading.Event()
        self.told: list[bool] = []
        self.holding = Holding(Lease(user_id=uuid4(), token="w:1", fence=1))
        self.providers: dict[str, Any] = {"demo": KeptProvider(self.sender)}

    def run(self) -> "Trip":
        """Work the lane."""
        loops.run(self._run())
        return self

    async def _run(self) -> None:
        place = workplace.opened(
            self.settings,
            cast("Any", self.lanes),
            cast("Any", self.records),
            cast("dict[str, Provider]", self.providers),
            cast("Any", PlainLoop()),
            self.stopping,
            lambda: self.told.append(True),
        )
        self.place = place
        await Shipment(self.holding, place).run()
        await asyncio.gather(*(way.sending.close() for way in place.ways.values() if way))

    @property
    def fate(self) -> Fate:
        """What became of the only reply."""
        [fate] = self.records.fates
        return fate


def _ended(answer: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(answer)
    return future
