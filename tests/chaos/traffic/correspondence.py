"""One user's steps in their order.

Posts may overtake each other. A command waits until everything posted before it is acknowledged, and holds up
everything after it until the service has carried it out: so it is exact which messages it covers.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from tests.chaos.traffic.plan import ECHO, RENAME, Command, Post, Step, User


class Desk(Protocol):
    """Who does the work, without keeping the caller waiting."""

    def post(self, user: User, post: Post, then: Callable[[int], None]) -> None:
        """Deliver until accepted, then say which number the message got: 0 if that is not told."""

    def rename(self, user: User, nr: int, then: Callable[[], None]) -> None:
        """Deliver until accepted that somebody has another name, then say so."""

    def echo(self, user: User, nr: int, after_seq: int, then: Callable[[], None]) -> None:
        """Deliver until accepted what a colleague has written to somebody, then say so."""

    def command(self, name: str, user: User, after_seq: int, then: Callable[[], None]) -> None:
        """Do what the operator wants, then say so."""


class Correspondence:
    """What one user has said and has still to say."""

    def __init__(self, user: User, desk: Desk, last_seq: int | None = None) -> None:
        """Begin, or go on after `last_seq`, the number that their last message got."""
        self.user = user
        self.last_seq = last_seq or 0
        self.has_written = last_seq is not None
        """Whether the service has a message of theirs; before that it knows nobody to command."""
        self._desk = desk
        self._steps: deque[Step] = deque()
        self._unanswered = 0
        self._is_commanding = False
        self._changing = threading.RLock()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""
        with self._changing:
            return not (self._steps or self._unanswered or self._is_commanding)

    def add(self, step: Step) -> None:
        """Do this next."""
        with self._changing:
            self._steps.append(step)
            self._advance()

    def drop_rest(self) -> list[Post]:
        """Forget what has not begun; return the posts among it, which nobody ever delivered."""
        with self._changing:
            dropped = [step for step in self._steps if isinstance(step, Post)]
            self._steps.clear()
        return dropped

    def _advance(self) -> None:
        while self._steps and not self._is_commanding:
            step = self._steps[0]
            if isinstance(step, Command) and self._unanswered:
                return
            self._steps.popleft()
            if isinstance(step, Post):
                self._unanswered += 1
                self._desk.post(self.user, step, self._answered)
            elif step.name == RENAME:
                self._is_commanding = True
                self._desk.rename(self.user, step.nr, self._commanded)
            elif self.has_written and step.name == ECHO:
                self._is_commanding = True
                self._desk.echo(self.user, step.nr, self.last_seq, self._commanded)
            elif self.has_written:
                self._is_commanding = True
                self._desk.command(step.name, self.user, self.last_seq, self._commanded)

    def _answered(self, seq: int) -> None:
        with self._changing:
            self.has_written = True
            self.last_seq = max(self.last_seq, seq)
            self._unanswered -= 1
            self._advance()

    def _commanded(self) -> None:
        with self._changing:
            self._is_commanding = False
            self._advance()
