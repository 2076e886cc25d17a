"""Each channel's share of the slots: one whose provider hangs does not take them all.

A user stays on one channel. So a lane's channel is known before it is begun, if it was here before.
"""

import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

KNOWN_MAX: Final = 20_000
PAUSE_S: Final = 0.25
PAUSE_MAX_S: Final = 60.0
"""How far ahead a place is promised. A provider that becomes quick again finds lanes that wait for so long."""
REQUEST_S: Final = 1.0
"""How long a place is taken, where nobody knows yet."""
LAST_SHARE: Final = 0.2
"""By so much the last request changes what is expected of the next."""


class Shares:
    """Who is on which channel. For one thread."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Let a channel have at most so many slots."""
        self._most = most
        self._clock = clock
        self._taken: Counter[str] = Counter()
        self._took_s: dict[str, float] = {}
        """How long a channel's places are taken."""
        self._promised_at: dict[str, float] = {}
        """When the place is expected that a channel's last postponed lane may have."""
        self._channels: OrderedDict[UUID, str] = OrderedDict()

    @contextmanager
    def place(self, channel: str, user_id: UUID) -> Iterator[bool]:
        """Take a place for a request, if there is one."""
        self._know(user_id, channel)
        if self._taken[channel] >= self._most:
            yield False
            return
        self._taken[channel] += 1
        began = self._clock()
        try:
            yield True
        finally:
            self._taken[channel] -= 1
            took_s, expected_s = self._clock() - began, self._took_s.get(channel, REQUEST_S)
            self._took_s[channel] = expected_s + LAST_SHARE * (took_s - expected_s)

    def known_to_be_full(self, user_id: UUID) -> str | None:
        """Return the user's channel, if it is known and has no place: it would be in vain to begin the lane."""
        channel = self._channels.get(user_id)
        return channel if channel is not None and self._taken[channel] >= self._most else None

    def pause_s(self, channel: str, user_id: UUID, workers: int = 1) -> float:
        """Return how long a lane without a place waits: until there is one for it, after those that wait already.

        What is too far away for that comes back at some time, not all at once. So many `workers` have such places.
        """
        self._know(user_id, channel)
        now = self._clock()
        each_s = self._took_s.get(channel, REQUEST_S) / (self._most * workers)
        at = max(self._promised_at.get(channel, 0.0), now + PAUSE_S) + each_s
        if at - now > PAUSE_MAX_S:
            return random.uniform(PAUSE_MAX_S / 2, PAUSE_MAX_S)  # noqa: S311 - nothing secret about it
        self._promised_at[channel] = at
        return at - now

    @property
    def full(self) -> list[str]:
        """The channels that have no place now."""
        return [channel for channel, taken in self._taken.items() if taken >= self._most]

    def _know(self, user_id: UUID, channel: str) -> None:
        """Remember the channel of a user's lane."""
        self._channels[user_id] = channel
        self._channels.move_to_end(user_id)
        if len(self._channels) > KNOWN_MAX:
            self._channels.popitem(last=False)
