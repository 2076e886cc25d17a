"""What Postgres cannot take while it is away is held: tried again at growing pauses, as long as the lease lives."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Final, Self, TypeVar

from onelane.bot.memory import Hold
from onelane.errors import StoreUnavailable
from onelane.postgres.breaker import Breaker

Answer = TypeVar("Answer")

PAUSE_S: Final = 0.25
PAUSE_MAX_S: Final = 4.0
TICK_S: Final = 0.5
"""How soon a pause ends with the lease or the process."""


class OutageHold(Hold):
    """One thing that is held; while there is any, its process begins nothing new that could not be stored either."""

    def __init__(self, breaker: Breaker, lasts_s: float, is_over: Callable[[], bool]) -> None:
        """Hold for `lasts_s` at most, and until `is_over`."""
        self._breaker = breaker
        self._ends = time.monotonic() + lasts_s
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
        next_at = time.monotonic() + self._pause_s
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


async def asked_again(ask: Callable[[], Awaitable[Answer]], hold: OutageHold, error: StoreUnavailable) -> Answer:
    """Ask for what `error` kept Postgres from doing, until it is done."""
    with hold:
        while True:
            for wait_s in hold.rests(error):
                await asyncio.sleep(wait_s)
            try:
                return await ask()
            except StoreUnavailable as again:
                error = again
