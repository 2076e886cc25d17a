"""Whether this process can work with Postgres: while it cannot, it takes no lanes, and others do its work.

One failure of the whole server opens the breaker. A probe, which writes, closes it; so does a commit that was held. A
server that takes a probe and then no commit is probed less and less often. While commits are held nothing is begun that
could not be committed either.

Somebody who got no answer in time makes the server suspect: it may be away, or have met one locked row. A probe of its
own finds out which, and until it has, everybody goes on.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from onelane.errors import StoreAway, StoreUnavailable
from onelane.telemetry.log import event

PROBE_PAUSE_S: Final = 0.5
PROBE_PAUSE_MAX_S: Final = 8.0
CALM_S: Final = 60.0
"""Who was away again so soon after a probe is not trusted sooner than last time."""


class Breaker:
    """Closed as long as all is well."""

    def __init__(self, probe: Callable[[], object]) -> None:
        self._probe = probe
        self._changing = threading.Lock()
        """Guards what follows: every call may open it, one thread probes."""
        self._opened_at: float | None = None
        self._closed_at = float("-inf")
        self._pause_s = PROBE_PAUSE_S
        self._probe_at = 0.0
        self._held = 0
        self._ask_at = 0.0
        self._asking = threading.Lock()
        """Held while a thread probes for those who ask, so that it is one."""

    @property
    def is_open(self) -> bool:
        """Whether the server is away for this process, as far as it knows."""
        return self._opened_at is not None

    def open(self, error: str) -> None:
        """Note that the server is away."""
        now = time.monotonic()
        with self._changing:
            if self.is_open:
                return
            self._opened_at = now
            if now - self._closed_at > CALM_S:
                self._pause_s = PROBE_PAUSE_S
            self._probe_at = now + self._pause_s
            self._ask_at = now + PROBE_PAUSE_S
        event("postgres_away", error=error)

    def close(self) -> None:
        """Note that the server has committed something."""
        now = time.monotonic()
        with self._changing:
            if self._opened_at is None:
                return
            away_s, self._opened_at, self._closed_at = now - self._opened_at, None, now
        event("postgres_back", away_s=round(away_s, 1))

    def lets_lease(self) -> bool:
        """Whether lanes may be leased; probes when that is open, and due. For one thread."""
        if not self.is_open:
            return True
        if self._held or time.monotonic() < self._probe_at:
            return False
        self._pause_s = min(PROBE_PAUSE_MAX_S, 2 * self._pause_s)
        try:
            self._probe()
        except StoreUnavailable:
            self._probe_at = time.monotonic() + self._pause_s
            return False
        self.close()
        return True

    def suspect(self) -> None:
        """Note that the server has left somebody without an answer: a probe finds out why, and nobody waits for it."""
        if not self.is_open:
            self._find_out()

    def lets_ask(self, within_s: float) -> bool:
        """Whether to ask the server for something; for many threads, none of which is to wait for one that is away.

        While it is away, one of them twice a second waits `within_s` for a probe, and the others are refused at once.
        """
        if self.is_open and (found_out := self._find_out()):
            found_out.wait(within_s)
        return not self.is_open

    def _find_out(self) -> threading.Event | None:
        """Begin a probe, and return what is set at its end; None: another is under way, or was a moment ago."""
        if time.monotonic() < self._ask_at or not self._asking.acquire(blocking=False):
            return None
        found_out = threading.Event()
        try:
            threading.Thread(target=self._ask, args=(found_out,), name="probe", daemon=True).start()
        except RuntimeError:  # no thread can be had
            self._asking.release()
            return None
        return found_out

    def _ask(self, found_out: threading.Event) -> None:
        """Probe, in a thread of its own. A probe that finds no free connection, or a lock, changes nothing."""
        try:
            self._probe()
        except StoreUnavailable as error:
            self._ask_at = time.monotonic() + PROBE_PAUSE_S
            if isinstance(error, StoreAway):
                self.open(str(error))
        else:
            self.close()
        finally:
            self._asking.release()
            found_out.set()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold a commit: as long as the server is away for it, nothing else is begun."""
        with self._changing:
            self._held += 1
        try:
            yield
        finally:
            with self._changing:
                self._held -= 1
