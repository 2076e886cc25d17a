"""Looks at every state that can be reached, nearest first, so that what is found is found on the shortest way."""

import time
from array import array
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.explore import rules, world
from tests.explore.settings import Setting
from tests.explore.state import State, fences_of, renumbered
from tests.explore.steps import Step, told


class Found(NamedTuple):
    """A broken promise, and how it came to that."""

    promise: str
    trace: tuple[str, ...]


class Explored(NamedTuple):
    """What was looked at."""

    states: int
    steps: int
    depth: int
    drained: int
    """States in which nothing is left to do."""
    seconds: float
    found: Found | None
    is_complete: bool
    """Whether that were all."""

    def summary(self) -> str:
        return f"{self.states:,} states, {self.steps:,} steps, depth {self.depth}, {self.seconds:.1f} s"


class Known(NamedTuple):
    """A state, with the numbers of its parts: users, workers, and the rest."""

    state: State
    parts: tuple[object, ...]
    numbers: tuple[int, ...]

    @property
    def key(self) -> tuple[int, ...]:
        """Make its key: the workers are alike, so that which is which does not count."""
        *users, one, other, rest = self.numbers
        return (*users, one, other, rest) if one <= other else (*users, other, one, rest)


class Search:
    """One search, from the start of a setting."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.numbers: dict[object, int] = {}
        """Of all parts of states: there are few, which many states share."""
        self.fences: list[frozenset[int]] = []
        """Of the parts."""
        self.places: dict[tuple[int, ...], int] = {}
        self.parents = array("l")
        self.depths = array("i")
        self.sources, self.targets = array("l"), array("l")
        self.drained: list[int] = []

    def run(self, states_max: int | None = None) -> Explored:
        """Look at all states, or so many; stop at the first broken promise."""
        began = time.monotonic()
        start = self._known(self.setting.start())
        self._note(start, -1, 0)
        waiting, found, here = deque([start]), None, -1
        while waiting and found is None and not (states_max and len(self.places) >= states_max):
            here += 1
            found = self._look(waiting.popleft(), here, waiting)
        is_complete = not waiting and found is None
        if is_complete:
            found = self._stuck()
        seconds = time.monotonic() - began
        return Explored(
            len(self.places), len(self.sources), max(self.depths), len(self.drained), seconds, found, is_complete
        )

    def _look(self, known: Known, here: int, waiting: deque[Known]) -> Found | None:
        if rules.is_drained(known.state, self.setting):
            self.drained.append(here)
        for step in world.steps(known.state, self.setting):
            promise = rules.broken_on_the_way(known.state, step)
            after = self._known(step.after, known)
            there = self.places.get(after.key)
            if there is None:
                promise = promise or rules.broken_by(after.state, self.setting)
                there = self._note(after, here, self.depths[here] + 1)
                waiting.append(after)
            self.sources.append(here)
            self.targets.append(there)
            if promise:
                return Found(promise, (*self.trace(here), told(step)))
        return None

    def _note(self, known: Known, parent: int, depth: int) -> int:
        place = self.places[known.key] = len(self.places)
        self.parents.append(parent)
        self.depths.append(depth)
        return place

    def _known(self, state: State, like: Known | None = None) -> Known:
        """Number a state's fences and its parts; most are those of the state before it."""
        parts = (*state.users, *state.workers, state[2:])
        if like is None:
            numbers = tuple(map(self._number, parts))
        else:
            before = zip(parts, like.parts, like.numbers, strict=True)
            numbers = tuple(nr if part is same else self._number(part) for part, same, nr in before)
        fences = frozenset().union(*[self.fences[nr] for nr in numbers])
        if max(fences) < len(fences):
            return Known(state, parts, numbers)
        return self._known(renumbered(state, fences))

    def _number(self, part: Any) -> int:
        number = self.numbers.setdefault(part, len(self.numbers))
        if number == len(self.fences):
            self.fences.append(frozenset({0, *fences_of(part)}))
        return number

    def trace(self, place: int) -> tuple[str, ...]:
        """Tell the shortest way to a state, by going it again."""
        way = [place]
        while self.parents[way[-1]] >= 0:
            way.append(self.parents[way[-1]])
        state, steps = self.setting.start(), []
        for there in reversed(way[:-1]):
            step = next(one for one in world.steps(state, self.setting) if self._is_at(one, there))
            steps.append(told(step))
            state = self._known(step.after).state
        return tuple(steps)

    def _is_at(self, step: Step, place: int) -> bool:
        return self.places.get(self._known(step.after).key) == place

    def _stuck(self) -> Found | None:
        """Find the nearest state from which nothing leads to an end: all that is left must be able to be done."""
        before: list[list[int]] = [[] for _ in self.places]
        for source, target in zip(self.sources, self.targets, strict=True):
            before[target].append(source)
        ends, reached = list(self.drained), bytearray(len(self.places))
        while ends:
            place = ends.pop()
            if not reached[place]:
                reached[place] = 1
                ends += before[place]
        stuck = reached.find(0)
        return None if stuck < 0 else Found("whatever happened, all can be done", self.trace(stuck))


def lines(found: Found) -> Iterator[str]:
    """Format what was found."""
    yield f"broken: {found.promise}"
    for nr, step in enumerate(found.trace, 1):
        yield f"  {nr:2} {step}"
