"""Each channel's share of the slots: one whose provider hangs does not take them all.

A user stays on one channel. So a lane's channel is known before it is begun, if it was here before.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

KNOWN_MAX: Final = 20_000
PAUSE_S: Final = 0.25
PAUSE_MAX_S: Final = 5.0


class Shares:
    """Who is on which channel. For one thread."""

    def __init__(self, most: int) -> None:
        """Let a channel have at most so many slots."""
        self._most = most
        self._taken: Counter[str] = Counter()
        self._postponed: Counter[str] = Counter()
        """How many lanes of a channel found no place since one was free."""
        self._channels: OrderedDict[UUID, str] = OrderedDict()

    @contextmanager
    def place(self, channel: str, user_id: UUID) -> Iterator[bool]:
        """Take a place for a request, if there is one."""
        self._know(user_id, channel)
        if self._taken[channel] >= self._most:
            yield False
            return
        self._taken[channel] += 1
        try:
            yield True
        finally:
            self._taken[channel] -= 1
            self._postponed[channel] = max(0, self._postponed[channel] - 1)

    def is_known_to_be_full(self, user_id: UUID) -> bool:
        """Whether it would be in vain to begin this user's lane."""
        channel = self._channels.get(user_id)
        return channel is not None and self._taken[channel] >= self._most

    def pause_s(self, user_id: UUID) -> float:
        """Return how long a lane without a place waits: the longer, the more do."""
        channel = self._channels[user_id]
        self._postponed[channel] += 1
        return min(PAUSE_MAX_S, PAUSE_S * (1 + self._postponed[channel] / self._most))

    def _know(self, user_id: UUID, channel: str) -> None:
        self._channels[user_id] = channel
        self._channels.move_to_end(user_id)
        if len(self._channels) > KNOWN_MAX:
            self._channels.popitem(last=False)
