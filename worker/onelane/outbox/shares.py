"""Each channel's share of the slots: one whose provider hangs does not take them all.

A user stays on one channel. So a lane's channel is known before it is begun, if it was here before.
"""

import random
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

KNOWN_MAX: Final = 20_000
PAUSE_S: Final = 0.25
PAUSE_MAX_S: Final = 60.0
"""How far ahead a place is promised. A provider that becomes quick again finds lanes that wait for so long."""
PAUSE_UNKNOWN_S: Final = 0.5
"""For all lanes of a channel whose first requests are under way. When they are back together, somebody knows more."""
TICK_S: Final = 0.001
LAST_SHARE: Final = 0.2
"""By so much the last request changes what is expected of the next."""


@dataclass
class _Places:
    """The places of a channel."""

    taken: int = 0
    since: float = 0.0
    """The sum of the moments at which they were taken."""
    took_s: float | None = None
    """How long a place was taken of late; None: no request has ended yet."""
    awaited: float = 0.0
    """How many lanes were waiting for one, by what they were told, …"""
    counted_at: float = 0.0
    """… and when that was."""

    def note(self, took_s: float) -> None:
        """Learn from a request that has ended."""
        self.took_s = took_s if self.took_s is None else self.took_s + LAST_SHARE * (took_s - self.took_s)

    def expected_s(self, now: float) -> float | None:
        """Return for how long one is taken, by those that have ended and those of now; None: nobody knows yet."""
        age_s = now - self.since / self.taken if self.taken else 0.0
        if self.took_s is None:
            return None if age_s < PAUSE_UNKNOWN_S else 2 * age_s
        return max(TICK_S, self.took_s, age_s)


class Shares:
    """Who is on which channel. For one thread."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Let a channel have at most so many slots."""
        self._most = most
        self._clock = clock
        self._places: defaultdict[str, _Places] = defaultdict(_Places)
        self._channels: OrderedDict[UUID, str] = OrderedDict()

    @contextmanager
    def place(self, channel: str, user_id: UUID) -> Iterator[bool]:
        """Take a place for a request, if there is one."""
        self._know(user_id, channel)
        places = self._places[channel]
        if places.taken >= self._most:
            yield False
            return
        began = self._clock()
        places.taken += 1
        places.since += began
        try:
            yield True
        finally:
            places.taken -= 1
            places.since -= began
            places.note(self._clock() - began)

    def known_to_be_full(self, user_id: UUID) -> str | None:
        """Return the user's channel, if it is known and has no place: it would be in vain to begin the lane."""
        channel = self._channels.get(user_id)
        return channel if channel is not None and self._places[channel].taken >= self._most else None

    def pause_s(self, channel: str, user_id: UUID, workers: int = 1) -> float:
        """Return how long a lane without a place waits: until there is one for it, after those that wait already.

        What is too far away for that comes back at some time, not all at once. So many `workers` have such places.
        """
        self._know(user_id, channel)
        now, places = self._clock(), self._places[channel]
        expected_s = places.expected_s(now)
        if expected_s is None:
            return PAUSE_UNKNOWN_S
        each_s = expected_s / (self._most * workers)
        awaited = max(0.0, places.awaited - (now - places.counted_at) / each_s) + 1
        if PAUSE_S + awaited * each_s > PAUSE_MAX_S:
            return random.uniform(PAUSE_MAX_S / 2, PAUSE_MAX_S)  # noqa: S311 - nothing secret about it
        places.awaited, places.counted_at = awaited, now
        return PAUSE_S + awaited * each_s

    @property
    def full(self) -> list[str]:
        """The channels that have no place now."""
        return [channel for channel, places in self._places.items() if places.taken >= self._most]

    def _know(self, user_id: UUID, channel: str) -> None:
        """Remember the channel of a user's lane."""
        self._channels[user_id] = channel
        self._channels.move_to_end(user_id)
        if len(self._channels) > KNOWN_MAX:
            self._channels.popitem(last=False)
