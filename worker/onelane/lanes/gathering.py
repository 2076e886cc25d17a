"""What many threads ask at once goes in one round trip.

A worker has hundreds of slots and a few connections. Would each slot wait for one of its own, releases would queue, one
round trip behind the other, and of a slow Redis the last would give up. Alone, a call leaves at once.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from onelane.errors import LanesUnavailable

Call = tuple[str, Sequence[Any]]
"""A script's name and its arguments."""
GATHERED_MAX: Final = 256
"""Calls in one round trip."""


class Asked:
    """A call that waits for its answer."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.is_answered = False
        self.answer: Any = None
        """An exception is an answer, too."""


class Gathering:
    """One round trip at a time: whoever makes the next takes along all that has gathered meanwhile."""

    def __init__(self, send: Callable[[Sequence[Call]], list[Any]]) -> None:
        """`send` answers each call, by its answer or its error; what it raises is the answer to all."""
        self._send = send
        self._waiting: deque[Asked] = deque()
        """Every thread adds its own; only the one that sends takes out."""
        self._sending = threading.Lock()
        """Held over a round trip."""

    def ask(self, call: Call) -> Any:
        """Return the answer to `call`, or raise it."""
        asked = Asked(call)
        self._waiting.append(asked)
        with self._sending:
            while not asked.is_answered:
                self._send_oldest()
        if isinstance(asked.answer, Exception):
            raise asked.answer
        return asked.answer

    def _send_oldest(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), GATHERED_MAX))]
        answers: list[Any] = len(batch) * [LanesUnavailable("the thread that asked was interrupted")]
        try:
            answers = self._send([asked.call for asked in batch])
        except Exception as error:  # noqa: BLE001 - each of the threads raises it
            answers = len(batch) * [error]
        finally:
            for asked, answer in zip(batch, answers, strict=True):
                asked.answer, asked.is_answered = answer, True
