"""The user's lock: who holds it, how it stays alive, how its loss is noticed.

A lease lives in Redis until a time; one thread of the process pushes that time on for all leases at once. The race
that the fence decides, told once:

    A leases lane u (fence 41), begins m1, is frozen in the handler
    the lease runs out; B leases u (fence 42), begins m1 too
      B commits first   A's commit: 41 < 42, refused, dropped
      A commits first   B's commit finds m1 done: `already`; B drops its result and goes on with m2

So losing a lease never needs to stop a turn in time. It cancels the turn, to save work; Postgres decides.
"""

import threading
import time
from collections.abc import Callable

from worker.counters import LEASES_LOST
from worker.errors import LanesUnavailable
from worker.lanes import Lanes
from worker.model import Begun, Lease
from worker.telemetry import log

RENEWALS_PER_TTL = 3
RETRY_S = 0.5


class Holding:
    """A lease in use, and the turn that runs under it."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.cancelled = threading.Event()
        self.turn: Begun | None = None
        """The turn begun last."""
        self.handling_since: float | None = None
        """Since when its handler runs, on the monotonic clock."""
        self._is_open = True
        self._closing = threading.Lock()
        self._on_cancel: Callable[[], object] | None = None

    def cancel(self) -> None:
        """Tell the turn that its result will be dropped."""
        self.cancelled.set()
        if (stop := self._on_cancel) is not None:
            stop()

    def when_cancelled(self, stop: Callable[[], object] | None) -> None:
        """Call `stop` on cancellation; at once if that has happened."""
        self._on_cancel = stop
        if stop is not None and self.cancelled.is_set():
            stop()

    def close(self) -> bool:
        """Claim the right to say how this lease ends; only the first caller gets it.

        The slot that runs the turn and the watch that finds it overdue may both want to.
        """
        with self._closing:
            was_open, self._is_open = self._is_open, False
        return was_open

    @property
    def is_open(self) -> bool:
        """Whether the lease is still in use."""
        return self._is_open


class Keeper:
    """Renews all leases of a process in one call, a third of their life before they need it."""

    def __init__(self, lanes: Lanes, ttl_s: float, on_beat: Callable[[], None] = lambda: None) -> None:
        """`on_beat` is called after every successful round: the sign that this process still gets the CPU."""
        self._lanes = lanes
        self._ttl_s = ttl_s
        self._on_beat = on_beat
        self._holdings: dict[str, Holding] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; leases still in use run out."""
        self._stopped.set()

    def hold(self, lease: Lease) -> Holding:
        """Keep `lease` alive until it is dropped."""
        holding = Holding(lease)
        self._holdings[lease.token] = holding
        return holding

    def drop(self, holding: Holding) -> None:
        """Renew this lease no more."""
        self._holdings.pop(holding.lease.token, None)

    @property
    def holdings(self) -> list[Holding]:
        """The leases in use now."""
        return list(self._holdings.values())

    def _run(self) -> None:
        pause_s = self._ttl_s / RENEWALS_PER_TTL
        renewed_at = time.monotonic()
        while not self._stopped.wait(pause_s):
            try:
                self._renew()
            except LanesUnavailable as error:
                pause_s = RETRY_S
                log.warning("renewal_failed", leases=len(self._holdings), error=str(error))
                if time.monotonic() - renewed_at > self._ttl_s:
                    self._cancel_all()
            else:
                pause_s, renewed_at = self._ttl_s / RENEWALS_PER_TTL, time.monotonic()
            self._on_beat()

    def _renew(self) -> None:
        holdings = self.holdings
        if not holdings:
            return
        lost = self._lanes.renew([holding.lease for holding in holdings], self._ttl_s)
        for holding in holdings:
            if holding.lease.user_id in lost and holding.lease.token in self._holdings:
                LEASES_LOST.count()
                log.warning("lease_lost", user_id=str(holding.lease.user_id), fence=holding.lease.fence)
                self.drop(holding)
                holding.cancel()

    def _cancel_all(self) -> None:
        """Give up all turns: by now every lease has run out."""
        for holding in self.holdings:
            LEASES_LOST.count()
            self.drop(holding)
            holding.cancel()
