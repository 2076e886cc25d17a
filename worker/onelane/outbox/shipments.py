"""The slots of the outbox: one user's replies each, all on the work loop. No slot needs a thread.

The dispatcher and the watch ask from their own threads; what they ask for is done on the loop.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from onelane.channels.provider import Provider
from onelane.config import Settings
from onelane.errors import LanesUnavailable, describe
from onelane.lanes.holding import Holding
from onelane.lanes.lanes import Lanes
from onelane.outbox.records import SendRecords
from onelane.outbox.shipment import Shipment
from onelane.outbox.stages import Stage
from onelane.outbox.workplace import opened
from onelane.telemetry.log import event
from onelane.telemetry.numbers import TAKEOVERS
from onelane.turns.event_loop import EventLoop, all_of
from onelane.turns.leaving import Leaving

POSTPONED_S: Final = 0.5
"""How long a lane waits whose user's earlier request, of a lost lease, still runs here."""
CLOSES_S: Final = 1.0


class Shipments:
    """The replies at hand. A user holds one slot; at most SEND_SLOTS are held."""

    def __init__(
        self,
        settings: Settings,
        lanes: Lanes,
        records: SendRecords,
        providers: Mapping[str, Provider],
        loop: EventLoop,
        stopping: threading.Event,
        tell_failures: Callable[[], object] = lambda: None,
    ) -> None:
        """Open a way to every channel's provider; not on an event loop, since that takes a second.

        `tell_failures` is called, by a thread of its own, after replies have failed.
        """
        self._size = settings.send_slots
        self._limits_s = {stage: stage.limit_s(settings) for stage in Stage}
        self._workplace = opened(settings, lanes, records, providers, loop, stopping, tell_failures)
        self._running: dict[Shipment, asyncio.Task[None] | None] = {}
        """With the task, once it has begun."""
        self._changing = threading.Lock()
        """Guards `_running`: the dispatcher adds, each shipment removes itself, the watch reads."""
        self._leaving = Leaving(self._workplace.loop)
        self.freed = threading.Event()

    @property
    def free(self) -> int:
        """How many more lanes could be worked on."""
        return self._size - len(self._running)

    @property
    def are_idle(self) -> bool:
        """Whether no slot works."""
        return all(shipment.is_given_up for shipment in self._all())

    @property
    def are_all_stuck(self) -> bool:
        """Whether something is stuck in every slot."""
        return sum(shipment.is_given_up for shipment in self._all()) >= self._size

    def start(self, holdings: Iterable[Holding]) -> None:
        """Work lanes, all at once; give back for a moment those that would find no place."""
        busy = {one.lease.user_id for one in self._all() if one.stay.stage is not Stage.LEAVE}
        self._workplace.loop.run_all([self._begun(one, is_second=one.lease.user_id in busy) for one in holdings])

    def give_up_overdue(self) -> None:
        """End what is at one stage for longer than it may take; its lane is left to its lease."""
        now = self._workplace.loop.clock()
        overdue = [one for one in self._all() if now - one.stay.since > self._limits_s[one.stay.stage]]
        for shipment in overdue:
            if not shipment.is_given_up:
                shipment.is_given_up = True
                event("slot_stuck", stage=shipment.stay.stage, user_id=shipment.lease.user_id)
                self._leaving.begin(self._end(shipment))

    def hand_back(self) -> None:
        """End what is still under way. What is marked stays marked: whoever leases next finds it unknown."""
        for shipment in self._all():
            self._leaving.begin(self._end(shipment, is_to_park=True))

    def await_left(self, within_s: float) -> None:
        """Wait until those are released that were handed back."""
        self._leaving.wait(within_s)

    def close(self) -> None:
        """Close all connections to providers."""
        ways = [way for way in self._workplace.ways.values() if way is not None]
        closing = self._workplace.loop.run(all_of([way.sending.close() for way in ways]))
        with suppress(TimeoutError):
            closing.result(CLOSES_S)

    def _begun(self, holding: Holding, *, is_second: bool) -> Coroutine[Any, Any, None]:
        shipment = Shipment(holding, self._workplace)
        with self._changing:
            self._running[shipment] = None
        return self._work(shipment, POSTPONED_S if is_second else None, holding.lease.user_id)

    async def _work(self, shipment: Shipment, pause_s: float | None, user_id: UUID) -> None:
        try:
            with self._changing:
                self._running[shipment] = asyncio.current_task()
            if shipment.lease.taken_over:
                TAKEOVERS.count()
                event("lane_taken_over", user_id=user_id, fence=shipment.lease.fence)
            if pause_s is None and (channel := self._workplace.shares.known_to_be_full(user_id)):
                pause_s = self._workplace.without_place_s(channel, user_id)
            await (shipment.run() if pause_s is None else shipment.park(pause_s))
        except Exception as error:  # noqa: BLE001 - a slot never dies; the lane is due again when its lease runs out
            event("slot_failed", user_id=user_id, failure=describe(error))
        finally:
            shipment.holding.close()
            with self._changing:
                self._running.pop(shipment, None)
            self.freed.set()

    async def _end(self, shipment: Shipment, *, is_to_park: bool = False) -> None:
        """Cancel a shipment, whatever it waits for."""
        if not shipment.holding.close():
            return
        shipment.holding.cancel()
        with self._changing:
            task = self._running.get(shipment)
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=CLOSES_S)
        if is_to_park:
            with suppress(LanesUnavailable):
                await shipment.park(0)

    def _all(self) -> list[Shipment]:
        with self._changing:
            return list(self._running)
