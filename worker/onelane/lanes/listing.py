"""Calls of one script for many lanes go to Redis as one, with a list of items, and each gets its own answer."""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from onelane.lanes.gathering import Call

TAKE_LISTS: Final = frozenset({"enqueue", "bring_back", "finish", "park", "postpone"})
"""Scripts whose last argument is an item of a list; each item is an island, as if it were alone."""
LIST_MAX: Final = 64
"""Items in one script: Redis does nothing else meanwhile, for 1 to 2 ms."""


class Sent(NamedTuple):
    """A call as Redis gets it, for one or many of those that were asked."""

    name: str
    args: tuple[Any, ...]
    places: list[int]
    """Whose they are, in the order of the items."""
    items: list[Any]

    def arguments(self) -> tuple[Any, ...]:
        """Return all arguments, a list's items as JSON."""
        return (*self.args, json.dumps(self.items, default=str)) if self.items else self.args

    def answers(self, answer: Any) -> list[Any]:
        """Return the answer to each; what meets the script as a whole meets all."""
        is_of_all = isinstance(answer, Exception) or not self.items
        return len(self.places) * [answer] if is_of_all else answer


def listed(calls: Sequence[Call]) -> list[Sent]:
    """Put the calls of each script that takes lists together, as far as their other arguments are equal."""
    sent: list[Sent] = []
    open_lists: dict[tuple[Any, ...], Sent] = {}
    for place, (name, args) in enumerate(calls):
        if name not in TAKE_LISTS:
            sent.append(Sent(name, tuple(args), [place], []))
            continue
        *shared, item = args
        last = open_lists.get((name, *shared))
        if last is None or len(last.items) == LIST_MAX:
            last = open_lists[name, *shared] = Sent(name, tuple(shared), [], [])
            sent.append(last)
        last.places.append(place)
        last.items.append(item)
    return sent
