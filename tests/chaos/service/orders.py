"""What the storm orders the bot of one worker to do. An order is a file; one run takes it, the next that starts.

So a fault strikes a handler without any message that was written for it, when and where the schedule wants it.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

DYNO = "CHAOS_DYNO"
"""The environment variable that names a worker to its processes."""
FOLDER = "orders"
BLOCK, HANG = "block", "hang"
FOR_EVER_S = 3_600.0
"""Longer than any run."""


class Order(NamedTuple):
    """Keep everybody waiting who shares the thread (BLOCK: an async bot's loop), or only this turn (HANG)."""

    deed: str
    lasts_s: float


class Orders:
    """The orders of one worker."""

    def __init__(self, history: Path, worker: str) -> None:
        self._folder = history / FOLDER / worker
        self._folder.mkdir(parents=True, exist_ok=True)

    def give(self, order: Order, count: int) -> None:
        """Let so many runs take this order."""
        for nr in range(count):
            (self._folder / f"{order.deed} {order.lasts_s:g} {nr}").touch()

    @property
    def left(self) -> int:
        """How many orders nobody has taken yet."""
        return sum(1 for _ in self._names())

    def withdraw(self) -> None:
        """Take back what nobody has taken."""
        while self.take() is not None:
            pass

    def take(self) -> Order | None:
        """Take one; nobody else gets it."""
        for name in self._names():
            with suppress(FileNotFoundError):
                (self._folder / name).unlink()
                deed, lasts_s, _ = name.split()
                return Order(deed, float(lasts_s))
        return None

    def _names(self) -> Iterator[str]:
        return iter(sorted(path.name for path in self._folder.iterdir()))
