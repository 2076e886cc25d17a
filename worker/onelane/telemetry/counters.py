"""Counts in the process, in a dictionary. `processes/upload.py` sends what has gathered to Redis.

No name and no label depends on a user: there are as many fields as `numbers.py` lists.
"""

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

OTHER: Final = "other"
MICROSECONDS: Final = 1_000_000

Batch = dict[str, int]


class Counters:
    """What this process has counted and has not sent yet."""

    def __init__(self) -> None:
        self._gathered: Batch = {}
        self._adding = threading.Lock()

    def add(self, field: str, amount: int = 1) -> None:
        """Add to a field."""
        with self._adding:
            self._gathered[field] = self._gathered.get(field, 0) + amount

    def take(self) -> Batch:
        """Return what has gathered since the last call."""
        with self._adding:
            taken, self._gathered = self._gathered, {}
        return taken


counters: Final = Counters()
"""One for each process: many places count, and none needs wiring."""


class Counter:
    """A number that only grows, for each value of one label."""

    def __init__(
        self, name: str, help_text: str, label: str = "", values: Sequence[str] = ("",), into: Counters = counters
    ) -> None:
        """Take all values that the label can have: any other is counted as `other`."""
        self.name, self.help_text, self.label = name, help_text, label
        self._fields = {value: f"{name}:{value}" for value in (*values, *([OTHER] if label else []))}
        self._into = into

    def count(self, value: str = "", amount: int = 1) -> None:
        """Count one, or `amount`."""
        self._into.add(self._fields.get(value) or self._fields[OTHER], amount)

    def read(self, numbers: Mapping[str, int]) -> dict[str, int]:
        """Return this counter's values out of all numbers."""
        return {value: numbers.get(field, 0) for value, field in self._fields.items()}


class Histogram:
    """Durations, counted in buckets."""

    def __init__(self, name: str, help_text: str, bounds_s: Sequence[float], into: Counters = counters) -> None:
        """Take the buckets' upper bounds, ascending; a bucket without a bound follows them."""
        self.name, self.help_text = name, help_text
        self._bounds_s = tuple(bounds_s)
        self._bounds = (*(f"{bound:g}" for bound in bounds_s), "+Inf")
        self._fields = tuple(f"{name}:{bound}" for bound in self._bounds)
        self._sum = f"{name}:us"
        self._into = into

    def observe(self, seconds: float) -> None:
        """Count one that took `seconds`; a negative time, of a clock that was set back, counts as 0."""
        seconds = max(seconds, 0.0)
        self._into.add(self._fields[bisect_left(self._bounds_s, seconds)])
        self._into.add(self._sum, int(seconds * MICROSECONDS))

    def read(self, numbers: Mapping[str, int]) -> tuple[list[tuple[str, int]], float]:
        """Return (upper bound, how many took at most that) for each bucket, and the sum of seconds."""
        total, buckets = 0, []
        for bound, field in zip(self._bounds, self._fields, strict=True):
            total += numbers.get(field, 0)
            buckets.append((bound, total))
        return buckets, numbers.get(self._sum, 0) / MICROSECONDS


def numbers_in(fields: Mapping[bytes, bytes]) -> dict[str, int]:
    """Decode the hash `keys.NUMBERS`: the numbers of all processes, and nothing that somebody else wrote there."""
    return {field.decode(errors="replace"): int(number) for field, number in fields.items() if number.isdigit()}
