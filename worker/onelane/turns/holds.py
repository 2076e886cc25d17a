"""What Postgres cannot take while it is away is held: tried again at growing pauses, as long as the lease lives."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final, Self

from onelane.bot.memory import Hold
from onelane.errors import StoreUnavailable
from onelane.postgres.breaker import Breaker

PAUSE_S: Final = 0.25
PAUSE_MAX_S: Final = 4.0
TICK_S: Final = 0.5
"""How soon a pause ends with the lease or the process."""


class OutageHold(Hold):
    """One thing that is held; while there is any, its process begins nothing new that could not be stored either."""

    def __init__(self, breaker: Breaker, lasts_s: float, is_over: Callable[[], bool]) -> None:
        """Hold for `lasts_s` at most from the first failure on, and until `is_over`."""
        self._breaker = breaker
        self._lasts_s = lasts_s
        self._ends: float | None = None
        self._is_over = is_over
        self._pause_s = PAUSE_S
        self._counted = ExitStack()
        self._is_counted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._counted.close()

    def rests(self, error: StoreUnavailable) -> Iterator[float]:
        """Yield the waits until the next try, in seconds; raise `error` once nothing is held any more."""
        now = time.monotonic()
        self._ends, next_at = self._ends or now + self._lasts_s, now + self._pause_s
        if self._is_over() or next_at > self._ends:
            raise error
        self._pause_s = min(PAUSE_MAX_S, 2 * self._pause_s)
        self._count()
        while (left_s := next_at - time.monotonic()) > 0:
            if self._is_over():
                raise error
            yield min(TICK_S, left_s)

    def done(self) -> None:
        """Note that the server has taken it."""
        self._breaker.close()

    def _count(self) -> None:
        if self._breaker.is_open and not self._is_counted:
            self._is_counted = True
            self._counted.enter_context(self._breaker.holding())
