"""The slots of the outbox: who has one, and what happens to what is under way when the process ends."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, cast
from uuid import UUID, uuid4

import httpx2
import pytest

from onelane.config import Channel, Settings
from onelane.lanes.holding import Holding
from onelane.model import Lease
from onelane.outbox.reply import BeginOutcome, Deed
from onelane.outbox.shipments import Shipments
from onelane.outbox.stages import Stage
from onelane.turns.event_loop import EventLoop
from tests.conftest import LogLines, eventually
from tests.shipping import KeptLanes, KeptProvider, KeptRecords, PlainSender, waiting


class Outbox:
    """Shipments on a loop of their own, all with the same records; requests wait for `gate`."""

    def __init__(self, **settings: Any) -> None:
        channels = {name: Channel(provider="demo", secrets=["s"]) for name in ("demo", "other")}
        required = {"database_url": "postgres://u@h/d", "redis_url": "redis://h", "channels": channels}
        self.records, self.lanes, self.stopping = KeptRecords(), KeptLanes(), threading.Event()
        self.loop, self.gate, self.asked = EventLoop("outbox"), threading.Event(), 0
        sender = PlainSender(self._answer)
        providers = {name: KeptProvider(sender) for name in channels}
        self.shipments = Shipments(
            Settings(**{**required, **settings}),
            cast("Any", self.lanes),
            cast("Any", self.records),
            cast("Any", providers),
            self.loop,
            self.stopping,
        )

    async def _answer(self, _request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        while not self.gate.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.001)
        return httpx2.Response(200, json={"id": "p1"})

    def lease(self, *, channel: str = "demo", user_id: UUID | None = None) -> Holding:
        self.records.rows.append(waiting(channel=channel))
        holding = Holding(Lease(user_id=user_id or uuid4(), token="w:1", fence=1))
        self.shipments.start([holding])
        return holding


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    made = Outbox(send_slots=4)
    yield made
    made.gate.set()
    eventually(lambda: made.shipments.are_idle)
    made.shipments.close()


def test_a_lane_has_a_slot_until_it_is_left(outbox: Outbox) -> None:
    outbox.lease()
    eventually(lambda: outbox.asked == 1)
    assert (outbox.shipments.free, outbox.shipments.are_idle) == (3, False)
    outbox.gate.set()
    assert outbox.shipments.freed.wait(5)
    assert (outbox.shipments.free, outbox.shipments.are_idle) == (4, True)
    assert [fate.deed for fate in outbox.records.fates] == [Deed.ACCEPTED]


def test_a_users_second_lease_waits_for_the_request_of_the_first(outbox: Outbox) -> None:
    first = outbox.lease()
    eventually(lambda: outbox.asked == 1)
    first.cancel()  # the lease is lost, its request is not over
    outbox.lease(user_id=first.lease.user_id)
    eventually(lambda: outbox.lanes.parked == [0.5])
    assert outbox.asked == 1


def test_a_channel_that_hangs_leaves_slots_to_the_others(outbox: Outbox) -> None:
    outbox.records.outcome = BeginOutcome.SEND
    for _ in range(3):
        outbox.lease()
    eventually(lambda: outbox.asked == 3)
    outbox.lease()
    eventually(lambda: len(outbox.lanes.parked) == 1 and outbox.shipments.free == 1)
    assert outbox.records.fates == []


def test_a_mark_whose_channel_became_full_meanwhile_is_taken_back(outbox: Outbox) -> None:
    outbox.records.outcome, outbox.records.hears_of_full = BeginOutcome.SEND, False
    for _ in range(4):
        outbox.lease()
    eventually(lambda: outbox.asked == 3 and len(outbox.lanes.parked) == 1 and outbox.shipments.free == 1)
    [handed_back] = outbox.records.fates
    assert (handed_back.deed, handed_back.counts) == (Deed.NOT_NOW, False)


def test_what_is_under_way_at_the_end_stays_marked(outbox: Outbox) -> None:
    """Its mark is not taken back, and it is not settled: whoever leases the lane next finds that nobody knows."""
    holding = outbox.lease()
    eventually(lambda: outbox.asked == 1)
    outbox.shipments.hand_back()
    outbox.shipments.await_left(5)
    assert outbox.records.fates == []
    assert outbox.lanes.parked == [0]
    assert not holding.is_open
    eventually(lambda: outbox.shipments.free == 4)


def test_while_the_process_stops_a_request_is_still_settled(outbox: Outbox) -> None:
    outbox.lease()
    eventually(lambda: outbox.asked == 1)
    outbox.stopping.set()
    outbox.gate.set()
    eventually(lambda: outbox.shipments.are_idle)
    assert [fate.deed for fate in outbox.records.fates] == [Deed.ACCEPTED]


def test_what_is_stuck_gives_its_slot_back(outbox: Outbox, log_lines: LogLines) -> None:
    outbox.lease()
    eventually(lambda: outbox.asked == 1)
    [shipment] = outbox.shipments._all()
    assert shipment.stay.stage is Stage.SEND
    shipment.stay = shipment.stay._replace(since=-1_000_000)
    outbox.shipments.give_up_overdue()
    eventually(lambda: outbox.shipments.free == 4)
    assert [line["event"] for line in log_lines] == ["slot_stuck"]
    assert outbox.lanes.parked == []  # left to its lease: it is not known to be over
