"""Leases what is due of one kind of lane, for the free berths of a worker process. Each kind has a thread of its own.

A full, hanging or slow kind so never keeps the other from its lanes. When nobody of the process may lease (it is
suspended, a server is away, its helper does not answer), no kind does.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol

from onelane import periodic
from onelane.errors import LanesForeign, LanesUnavailable, describe
from onelane.lanes.holding import Holding
from onelane.lanes.keeper import Keeper
from onelane.lanes.lanes import Lanes
from onelane.lanes.leased import Leased
from onelane.postgres.breaker import Breaker
from onelane.processes.bell import Bell
from onelane.processes.eviction import Eviction
from onelane.processes.registration import Registration
from onelane.telemetry.log import event

LEASED_MAX: Final = 128
"""Lanes in one call: Redis does nothing else meanwhile."""
IDLE_WAIT_MAX_S = 2.4
"""Less than what is waited for an answer of Redis: it says nothing meanwhile."""
BURST_WAIT_S: Final = 0.1
SUSPENDED_TICK_S: Final = 0.1
BUSY_WAIT_MAX_S: Final = 0.5
GATHERED_S: Final = 0.002
"""When all berths were taken and one becomes free, others do: one call leases for them."""
OUTAGE_PAUSE_S: Final = 0.5


class Berths(Protocol):
    """Where the leased lanes of one kind are worked: `Slots` for turns, `Shipments` for replies."""

    freed: threading.Event
    """Set when a lane was left."""

    @property
    def free(self) -> int:
        """How many more lanes could be worked."""

    @property
    def are_idle(self) -> bool:
        """Whether nothing is worked on; what hangs is not waited for."""

    @property
    def are_all_stuck(self) -> bool:
        """Whether something hangs in every berth: then the process is replaced."""

    def start(self, holdings: Sequence[Holding], /) -> None:
        """Work lanes, each until it is released or lost."""

    def give_up_overdue(self) -> None:
        """End the leases of what hangs."""

    def hand_back(self) -> None:
        """Begin to release all lanes, because the process stops."""

    def await_left(self, within_s: float, /) -> None:
        """Wait until those that were given up or handed back are released."""


@dataclass(frozen=True)
class Permit:
    """What a worker process needs before it may lease lanes, of any kind."""

    registration: Registration
    keeper: Keeper
    breaker: Breaker
    eviction: Eviction
    stopping: threading.Event
    lock_ttl_s: float
    _asking: threading.Lock = field(default_factory=threading.Lock)
    """Lets one dispatcher ask the servers how they are, and the others wait for that."""

    @property
    def is_wanted(self) -> bool:
        """Whether the worker is to take lanes, and could keep their leases alive."""
        return not self.registration.is_suspended and self.keeper.can_renew

    def is_given(self) -> bool:
        """Whether the servers are well, as far as is known. Raise LanesUnavailable with Redis away."""
        with self._asking:
            return self.breaker.lets_lease() and self.eviction.lets_lease()


class Dispatcher:
    """Leases lanes of one kind, again and again, until the process stops or a burst is over."""

    def __init__(
        self, lanes: Lanes, berths: Berths, bell: Bell, permit: Permit, *, after: "Dispatcher | None" = None
    ) -> None:
        """In a burst, lanes of this kind may become due as long as the dispatcher `after` whom it ends works."""
        self.lanes = lanes
        self.berths = berths
        self.has_ended = False
        """Whether its burst is over."""
        self.is_refused = False
        """Whether it has found the lanes of another deployment."""
        self._bell = bell
        self._permit = permit
        self._stopping = permit.stopping
        self._after = after
        self._calls = 0
        self._outage: str | None = None
        """Why the last call failed."""
        self._since = inf
        """When it began its last round."""
        self._is_burst = False
        self._thread = threading.Thread(target=self._run, name=f"dispatcher_{lanes.kind}", daemon=True)

    def start(self, *, burst: bool = False) -> None:
        """Begin (`burst`: to end when nothing of this kind is due any more)."""
        self._is_burst = burst
        self._thread.start()

    def join(self, within_s: float) -> None:
        """Wait for its end."""
        self._thread.join(within_s)

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    @property
    def has_died(self) -> bool:
        """Whether it ended although it was not to."""
        return not (self.is_alive or self.has_ended or self._stopping.is_set())

    @property
    def hangs(self) -> bool:
        """Whether one round takes for longer than any may."""
        return not self.has_ended and time.monotonic() - self._since > periodic.LIMIT_S

    def _run(self) -> None:
        """Lease whatever is due for all free berths, again and again."""
        while not self._stopping.is_set():
            self._since = time.monotonic()
            free = min(self.berths.free, LEASED_MAX)
            if not self._permit.is_wanted:
                self._stopping.wait(SUSPENDED_TICK_S)
                continue
            if free == 0:
                self._bell.pass_on(self.lanes.kind)
                self.berths.freed.wait(BUSY_WAIT_MAX_S)
                self.berths.freed.clear()
                self._stopping.wait(GATHERED_S)
                continue
            try:
                if not self._permit.is_given():
                    self._stopping.wait(SUSPENDED_TICK_S)
                    continue
                is_last = self._after is None or self._after.has_ended
                leased = self._lease(free)
                if self._is_burst and is_last and not leased.leases and self.berths.are_idle:
                    self.has_ended = True
                    return
                if len(leased.leases) < free:  # all that was due; the answer holds when the next will be
                    self._wait_for_work(leased.next_due_s, BURST_WAIT_S if self._is_burst else IDLE_WAIT_MAX_S)
            except LanesForeign as error:
                self._leave_redis(error)
            except LanesUnavailable as error:
                self._note_outage(str(error))
                self._stopping.wait(OUTAGE_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - without this thread the process would live and do nothing
                event("task_failed", task="dispatcher", failure=describe(error))
                self._stopping.wait(OUTAGE_PAUSE_S)

    def _lease(self, free: int) -> Leased:
        """Lease for free berths in one call. A call whose answer was lost is asked again by its number.

        Leases that are not worked run out: renewed without that, they would keep everybody from their lanes.
        """
        leased = self.lanes.lease(self._permit.registration.name, self._calls, free, self._permit.lock_ttl_s)
        self._calls += 1
        self._outage = None
        holdings = self._permit.keeper.hold(leased.leases)
        try:
            self.berths.start(holdings)
        except BaseException:
            for holding in holdings:
                holding.close()
            raise
        return leased

    def _note_outage(self, error: str) -> None:
        """Log an outage when it begins, and whenever its reason is another."""
        if error != self._outage:
            event("lease_failed", kind=self.lanes.kind, error=error)
        self._outage = error

    def _wait_for_work(self, next_due_s: float | None, most_s: float) -> None:
        wait_s = most_s if next_due_s is None else min(most_s, next_due_s)
        was_woken = wait_s > 0 and self._bell.wait(self.lanes.kind, wait_s)
        if was_woken and (self._stopping.is_set() or self._permit.registration.is_suspended):
            self.lanes.pass_wake_on()

    def _leave_redis(self, error: LanesForeign) -> None:
        """End for good: Redis was swapped for one of another deployment, and another process would find the same."""
        if not self._stopping.is_set():
            event("worker_refused", error=str(error))
        self.is_refused = True
        self._stopping.set()
