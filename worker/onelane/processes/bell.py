"""One connection waits for work of all kinds: for whichever dispatcher of this process is to be woken.

Each kind has a list of tokens in Redis. One dispatcher at a time listens to all of them, the others wait for it; who
stops listening leaves that to another.
"""

import threading
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from onelane import keys
from onelane.lanes.lanes import Lanes
from onelane.lanes.prefixed import prefix_of
from onelane.lanes.scripts import text_of

BLOCK_MIN_S: Final = 0.005
"""Redis 6.2 cuts a time-out down to whole milliseconds, 0.001 s to 0, and 0 means for ever."""
HANDED_OVER_S: Final = 0.01
"""So long others leave it to the dispatcher of turns to listen: it is woken without another thread between."""
UNHEARD_S: Final = 0.1
"""So long nobody listens to a kind that was full: then it looks by itself, and is listened to if it has room again."""


class Bell:
    """Wakes dispatchers. A kind whose places are all taken leaves its tokens to other workers."""

    def __init__(self, lanes: Sequence[Lanes], has_room: Callable[[str], bool]) -> None:
        """`has_room` tells whether this process could work another lane of a kind."""
        self._lanes = {of_kind.kind: of_kind for of_kind in lanes}
        self._first = next(iter(self._lanes))
        self._has_room = has_room
        self._changed = threading.Condition()
        """Guards what follows."""
        self._listens_to: frozenset[str] | None = None
        """The kinds to whose tokens somebody listens; None: nobody does."""
        self._rung: set[str] = set()
        """Kinds whose dispatchers have not noticed yet."""

    def wait(self, kind: str, within_s: float) -> bool:
        """Wait until a lane of this kind becomes due or `within_s` is over; return whether one has."""
        ends = time.monotonic() + within_s
        while (left_s := ends - time.monotonic()) > 0:
            with self._changed:
                if self._listens_to is not None and kind not in self._listens_to:
                    left_s = min(left_s, UNHEARD_S)
                self._changed.wait_for(lambda: kind in self._rung or self._listens_to is None, left_s)
                if kind in self._rung:
                    self._rung.remove(kind)
                    return True
                if self._listens_to is not None:
                    return False
                if self._first_listens_soon(kind, left_s):
                    continue
                listens_to = self._listens_to = frozenset({kind, *filter(self._has_room, self._lanes)})
            most_s = inf if len(listens_to) == len(self._lanes) else UNHEARD_S
            self._listen(listens_to, max(BLOCK_MIN_S, min(most_s, ends - time.monotonic())))
        return False

    def _first_listens_soon(self, kind: str, within_s: float) -> bool:
        """Leave it to the first kind for a moment; return whether that listens now, or this kind was woken."""
        if kind == self._first or not self._has_room(self._first):
            return False
        most_s = min(within_s, HANDED_OVER_S)
        return self._changed.wait_for(lambda: kind in self._rung or self._listens_to is not None, most_s)

    def pass_on(self, kind: str) -> None:
        """Wake another worker by what this one has not noticed yet: all its places of this kind are taken."""
        with self._changed:
            was_rung = kind in self._rung
            self._rung.discard(kind)
        if was_rung:
            self._lanes[kind].pass_wake_on_soon()

    def _listen(self, kinds: frozenset[str], within_s: float) -> None:
        rung = None
        try:
            rung = self._take_token(kinds, within_s)
        finally:
            with self._changed:
                self._listens_to = None
                if rung is not None:
                    self._rung.add(rung)
                self._changed.notify_all()
        if rung is not None and not self._has_room(rung):
            self.pass_on(rung)

    def _take_token(self, kinds: frozenset[str], within_s: float) -> str | None:
        scripts, client = next(iter(self._lanes.values())).scripts, next(iter(self._lanes.values())).client
        lists = {prefix_of(client) + keys.wake(kind): kind for kind in kinds}
        taken = scripts.ask_once(lambda: client.blpop([keys.wake(kind) for kind in kinds], timeout=within_s))
        return None if taken is None else lists[text_of(taken[0])]
