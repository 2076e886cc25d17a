"""Stretches of time and what they cover, in O(log n) a question."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple, Self

FOR_EVER = 1e9
"""An end that nothing reaches, and that can still be added up."""


class Span(NamedTuple):
    """From `since` to `until`, in seconds; a moment if they are the same."""

    since: float
    until: float


class Spans:
    """A union of spans."""

    def __init__(self, spans: Iterable[tuple[float, float]] = ()) -> None:
        merged: list[Span] = []
        for since, end in sorted(spans):
            until = min(end, FOR_EVER)
            if merged and since <= merged[-1].until:
                merged[-1] = Span(merged[-1].since, max(merged[-1].until, until))
            else:
                merged.append(Span(since, until))
        self._spans = merged
        self._sinces = [span.since for span in merged]
        self._untils = [span.until for span in merged]
        self._totals = [0.0, *accumulate(span.until - span.since for span in merged)]

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def widened(self, *, before_s: float = 0.0, after_s: float = 0.0) -> Self:
        """Let every span begin earlier and end later."""
        return type(self)((since - before_s, until + after_s) for since, until in self)

    def joined(self, *others: "Spans") -> Self:
        """Unite with others."""
        all_spans: list[Spans] = [self, *others]
        return type(self)(span for spans in all_spans for span in spans)

    def touches(self, since: float, until: float) -> bool:
        """Tell whether any span has a moment in common with this one."""
        first = bisect_left(self._untils, since)
        return first < len(self._spans) and self._sinces[first] <= until

    def within(self, since: float, until: float) -> Iterator[Span]:
        """Yield what they cover of a span."""
        for nr in range(bisect_right(self._untils, since), bisect_left(self._sinces, until)):
            yield Span(max(since, self._sinces[nr]), min(until, self._untils[nr]))

    def contains(self, since: float, until: float) -> bool:
        """Tell whether one of them covers the whole of this one."""
        nr = bisect_right(self._sinces, since) - 1
        return nr >= 0 and until <= self._untils[nr]

    def covered_s(self, since: float, until: float) -> float:
        """Measure how much of a span these cover."""
        if until <= since:
            return 0.0
        first, last = bisect_right(self._untils, since), bisect_left(self._sinces, until)
        if first >= last:
            return 0.0
        inside = self._totals[last] - self._totals[first]
        return inside - max(0.0, since - self._sinces[first]) - max(0.0, self._untils[last - 1] - until)

    def free_s(self, since: float, until: float) -> float:
        """Measure how much of a span they leave free."""
        return max(0.0, until - since - self.covered_s(since, until))


def crowded(spans: Iterable[tuple[float, float]], at_least: int) -> Spans:
    """Tell when so many of these spans lasted at the same time."""
    turns = sorted([(since, 1) for since, _ in spans] + [(until, -1) for _, until in spans])
    counts = accumulate(turn for _, turn in turns)
    moments = [(moment, count) for (moment, _), count in zip(turns, counts, strict=True)]
    return Spans((since, until) for (since, count), (until, _) in pairwise(moments) if count >= at_least)
