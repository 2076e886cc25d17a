"""A lease in use: the user's lock, from the lease to its release.

A lease lives in Redis until a time; a helper process pushes that time on for all leases of a worker at once. The race
that the fence decides:

    A leases lane u (fence 41), begins m1, is frozen in the handler
    the lease runs out; B leases u (fence 42), begins m1 too
      B commits first   A's commit: 41 < 42, refused, dropped
      A commits first   B's commit finds m1 done: `already`; B drops its result and goes on with m2

So losing a lease never needs to stop a turn in time. It cancels the turn, to save work; Postgres decides.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from onelane.model import Lease


class Holding:
    """A lease in use."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.cancelled = threading.Event()
        self.is_leaving = False
        """Whether the lane is about to be released: that its lock is gone is then no loss.

        Written by the slot alone and read by the thread that receives losses: late by one, it logs a loss too many.
        """
        self._is_open = True
        self._closing = threading.Lock()
        self._on_cancel: Callable[[], object] | None = None
        self._newest_seq = 0
        self._on_newer: Callable[[int], object] | None = None

    def cancel(self) -> None:
        """Let the turn know that its result will be dropped."""
        self.cancelled.set()
        if (stop := self._on_cancel) is not None:
            stop()

    def when_cancelled(self, stop: Callable[[], object] | None) -> None:
        """Call `stop` on cancellation; at once if that has happened."""
        self._on_cancel = stop
        if stop is not None and self.cancelled.is_set():
            stop()

    def note_newer(self, seq: int) -> None:
        """Let the turn know of a newer message, by its number. Who misses this only loses time."""
        self._newest_seq = max(self._newest_seq, seq)
        if (tell := self._on_newer) is not None:
            tell(seq)

    @contextmanager
    def telling(self, tell: Callable[[int], object]) -> Iterator[None]:
        """Call `tell` with the number of what comes during the block, and of what came just before."""
        self._on_newer = tell
        tell(self._newest_seq)
        try:
            yield
        finally:
            self._on_newer = None

    def close(self) -> bool:
        """Claim the right to decide how this lease ends; only the first caller gets it.

        The slot that runs the turn and the watch that finds it overdue may both want to.
        """
        with self._closing:
            was_open, self._is_open = self._is_open, False
        return was_open

    @property
    def is_open(self) -> bool:
        """Whether the lease is still in use."""
        return self._is_open
