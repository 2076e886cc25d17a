"""The user's lock: who holds it, how it stays alive, how its loss is noticed.

A lease lives in Redis until a time; a helper process pushes that time on for all leases of a worker at once. The race
that the fence decides, told once:

    A leases lane u (fence 41), begins m1, is frozen in the handler
    the lease runs out; B leases u (fence 42), begins m1 too
      B commits first   A's commit: 41 < 42, refused, dropped
      A commits first   B's commit finds m1 done: `already`; B drops its result and goes on with m2

So losing a lease never needs to stop a turn in time. It cancels the turn, to save work; Postgres decides.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from uuid import UUID

from worker.counters import LEASES_LOST
from worker.failure import describe
from worker.model import Begun, JsonObject, Lease
from worker.renewal import lines
from worker.telemetry import log

ANNOUNCEMENTS_PER_TTL = 6
HELPER_STARTS_S = 10.0
HELPER_ENDS_S = 1.0


class Holding:
    """A lease in use, and the turn that runs under it."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.cancelled = threading.Event()
        self.turn: Begun | None = None
        """The turn begun last."""
        self.done: list[UUID] = []
        """Messages that became terminal under this lease, and of which Redis was not told yet."""
        self.handling_since: float | None = None
        """Since when its handler runs, on the monotonic clock."""
        self.is_leaving = False
        """Whether the turn is settled and its lane about to be given on: that its lock is gone is then no loss."""
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

    def take_done(self) -> list[UUID]:
        """Return what Redis is to be told now, once."""
        done, self.done = self.done, []
        return done

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
    """Keeps a process' leases alive through a helper process (`renewal.py`), whatever its handlers do to this one.

    This side says which leases are in use, and hears which are lost. It is told again and again, and a helper that
    died is replaced; both have a third of a lease's life for it.
    """

    def __init__(self, redis_access: JsonObject, ttl_s: float, stall_limit_s: float) -> None:
        """`redis_access` are the arguments of `scripts.connect`, as JSON has them."""
        self._told = {"redis": redis_access, "ttl_s": ttl_s, "stall_limit_s": stall_limit_s}
        self._ttl_s = ttl_s
        self._holdings: dict[str, Holding] = {}
        self._announced_at = 0.0
        self._announcing = threading.Lock()
        self._stopped = threading.Event()
        self._is_ready = threading.Event()
        self._thread: threading.Thread
        self._wire: socket.socket
        self._helper: subprocess.Popen[bytes]

    def start(self, on_beat: Callable[[], None] = lambda: None) -> None:
        """Begin to renew; `on_beat` is called whenever this side gets the CPU."""
        self._start_helper()
        self._is_ready.wait(HELPER_STARTS_S)  # a lease taken earlier could run out before the first renewal
        self._thread = threading.Thread(target=self._beat, args=(on_beat,), name="keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; leases still in use run out."""
        self._stopped.set()
        self._thread.join(self._ttl_s)
        self._end_helper()

    def hold(self, leases: Iterable[Lease]) -> list[Holding]:
        """Keep `leases` alive until they are dropped."""
        new = [Holding(lease) for lease in leases]
        self._holdings.update((holding.lease.token, holding) for holding in new)
        if new and time.monotonic() - self._announced_at > self._ttl_s / ANNOUNCEMENTS_PER_TTL:
            self._announce()
        return new

    def drop(self, holding: Holding) -> None:
        """Renew this lease no more."""
        self._holdings.pop(holding.lease.token, None)

    @property
    def holdings(self) -> list[Holding]:
        """The leases in use now."""
        return list(self._holdings.values())

    def _beat(self, on_beat: Callable[[], None]) -> None:
        while not self._stopped.wait(self._ttl_s / ANNOUNCEMENTS_PER_TTL):
            try:
                self._replace_dead_helper()
                self._announce()
                on_beat()
            except Exception as error:  # noqa: BLE001 - without this thread every lease would run out
                log.error("task_failed", failure=describe(error))

    def _replace_dead_helper(self) -> None:
        if (code := self._helper.poll()) is not None:
            log.error("keeper_died", exit_code=code)
            self._end_helper()
            self._start_helper()

    def _announce(self) -> None:
        """Say which leases are in use. A helper that does not hear it is replaced at the next beat."""
        with self._announcing:
            self._announced_at = time.monotonic()
            leases = {holding.lease.token: str(holding.lease.user_id) for holding in self.holdings}
            try:
                self._wire.sendall(json.dumps(leases).encode() + b"\n")
            except OSError:
                self._helper.kill()

    def _start_helper(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(self._ttl_s)
        with theirs:
            command = [sys.executable, "-m", "worker.renewal", str(theirs.fileno()), str(os.getpid())]
            self._helper = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        ours.sendall(json.dumps(self._told).encode() + b"\n")
        self._wire = ours
        threading.Thread(target=self._listen, args=(ours,), name="keeper-ear", daemon=True).start()

    def _end_helper(self) -> None:
        """Close the wire: the helper ends with it."""
        with suppress(OSError):
            self._wire.shutdown(socket.SHUT_RDWR)
        try:
            self._helper.wait(HELPER_ENDS_S)
        except subprocess.TimeoutExpired:
            self._helper.kill()
            self._helper.wait()

    def _listen(self, wire: socket.socket) -> None:
        """Hear how renewals went, until the wire is closed."""
        with suppress(OSError), wire:
            for line in lines(wire, lambda: self._ttl_s):
                match json.loads(line or b"null"):
                    case {"ready": _}:
                        self._is_ready.set()
                    case {"lost": list(lost)}:
                        self._lose(set(lost))
                    case {"failed": str(error)}:
                        log.warning("renewal_failed", leases=len(self._holdings), error=error)

    def _lose(self, tokens: set[str]) -> None:
        """Cancel the turns whose leases are another's, gone, or have run out."""
        for holding in self.holdings:
            if holding.lease.token in tokens and not holding.is_leaving:
                LEASES_LOST.count()
                log.warning("lease_lost", user_id=str(holding.lease.user_id), fence=holding.lease.fence)
                self.drop(holding)
                holding.cancel()
