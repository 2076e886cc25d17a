"""Whether this process can work with Postgres: while it cannot, it takes no lanes, and others do its work.

One failure of the whole server opens the breaker. A probe, which writes, closes it; so does a commit that was held. A
server that takes a probe and then no commit is probed less and less often. While commits are held nothing is begun that
could not be committed either.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from onelane.errors import StoreUnavailable
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
        self._is_suspected = False
        self._ask_at = 0.0
        self._asking = threading.Lock()
        """Lets one of many threads probe."""

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
        """Note that the server has left somebody without an answer: who asks next probes first."""
        self._is_suspected = True

    def lets_ask(self) -> bool:
        """Whether to ask the server for something; for many threads, none of which is to wait for one that is away.

        While it is away or suspected, one of them probes twice a second, and the others are refused at once.
        """
        if not (self.is_open or self._is_suspected):
            return True
        if time.monotonic() < self._ask_at or not self._asking.acquire(blocking=False):
            return False
        try:
            self._probe()
        except StoreUnavailable:
            self._ask_at = time.monotonic() + PROBE_PAUSE_S
            return False
        finally:
            self._asking.release()
        self._is_suspected = False
        self.close()
        return True

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
