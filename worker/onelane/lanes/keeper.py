"""Keeps a process's leases alive, whatever its handlers do to it: a helper process (`renewer.py`) renews them.

This side sends which leases are in use, and receives which are lost. It sends again and again, and replaces a helper
that died; both have a third of a lease's life for it.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing import Pipe

from onelane.lanes.holding import Holding
from onelane.model import JsonObject, Lease
from onelane.periodic import Periodic
from onelane.telemetry.log import event
from onelane.telemetry.numbers import LEASES_LOST
from onelane.wire import Wire

BEATS_PER_TTL = 6
HELPER_STARTS_S = 10.0
HELPER_ENDS_S = 1.0


class Keeper:
    """The leases of one process."""

    def __init__(self, redis_access: JsonObject, ttl_s: float, stall_limit_s: float) -> None:
        """`redis_access` are the arguments of `scripts.connect`, as JSON has them."""
        self._settings = {"redis": redis_access, "ttl_s": ttl_s, "stall_limit_s": stall_limit_s}
        self._ttl_s = ttl_s
        self._holdings: dict[str, Holding] = {}
        """By token. Single operations on it are atomic, and whoever walks it takes a copy."""
        self._sent_at = 0.0
        self._sending = threading.Lock()
        """Guards the helper and its wire: the dispatcher sends new leases, the beat sends all, or replaces both."""
        self._is_ready = threading.Event()
        self._beats: Periodic
        self._wire: Wire
        self._helper: subprocess.Popen[bytes]

    def start(self, on_beat: Callable[[], None] = lambda: None) -> None:
        """Begin to renew; `on_beat` is called whenever this side gets the CPU."""
        self._start_helper()
        self._is_ready.wait(HELPER_STARTS_S)  # a lease taken earlier could run out before the first renewal
        self._beats = Periodic("keeper", lambda: self._beat(on_beat), self._ttl_s / BEATS_PER_TTL)
        self._beats.start()

    def stop(self) -> None:
        """Renew no more; leases still in use run out."""
        self._beats.stop(self._ttl_s)
        self._end_helper()

    def hold(self, leases: Iterable[Lease]) -> list[Holding]:
        """Keep `leases` alive until they are closed."""
        new = [Holding(lease) for lease in leases]
        self._holdings.update((holding.lease.token, holding) for holding in new)
        if new and time.monotonic() - self._sent_at > self._ttl_s / BEATS_PER_TTL:
            self._send_leases()
        return new

    @property
    def holdings(self) -> list[Holding]:
        """The leases in use now: those that nobody has closed, and that were not lost."""
        return [holding for holding in list(self._holdings.values()) if holding.is_open]

    def _beat(self, on_beat: Callable[[], None]) -> None:
        self._replace_dead_helper()
        self._send_leases()
        on_beat()

    def _replace_dead_helper(self) -> None:
        if (code := self._helper.poll()) is not None:
            event("renewer_died", exit_code=code)
            self._end_helper()
            self._start_helper()

    def _send_leases(self) -> None:
        """Send which leases are in use. A helper that does not take it is replaced at the next beat."""
        with self._sending:
            self._sent_at = time.monotonic()
            for token, holding in list(self._holdings.items()):
                if not holding.is_open:
                    self._holdings.pop(token, None)
            leases = {token: str(holding.lease.user_id) for token, holding in list(self._holdings.items())}
            try:
                self._wire.send(leases)
            except OSError:
                self._helper.kill()

    def _start_helper(self) -> None:
        ours, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-P", "-m", "onelane.lanes.renewer", str(theirs.fileno()), str(os.getpid())]
            helper = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        wire = Wire(ours, self._ttl_s)
        wire.send(self._settings)
        with self._sending:
            self._helper, self._wire = helper, wire
        threading.Thread(target=self._listen, args=(wire,), name="renewals", daemon=True).start()

    def _end_helper(self) -> None:
        """Shut the wire down: the helper ends with it."""
        self._wire.shut_down()
        try:
            self._helper.wait(HELPER_ENDS_S)
        except subprocess.TimeoutExpired:
            self._helper.kill()
            self._helper.wait()

    def _listen(self, wire: Wire) -> None:
        """Receive how renewals went, until the helper has ended."""
        with suppress(OSError, EOFError):
            while True:
                match wire.receive(None):
                    case {"ready": _}:
                        self._is_ready.set()
                    case {"lost": list(lost)}:
                        self._lose(set(lost))
                    case {"failed": str(error)}:
                        event("renewal_failed", leases=len(self._holdings), error=error)
        wire.close()

    def _lose(self, tokens: set[str]) -> None:
        """Cancel the turns whose leases are another's, gone, or have run out."""
        for holding in self.holdings:
            if holding.lease.token in tokens and not holding.is_leaving:
                LEASES_LOST.count()
                event("lease_lost", user_id=holding.lease.user_id, fence=holding.lease.fence)
                self._holdings.pop(holding.lease.token, None)
                holding.cancel()
