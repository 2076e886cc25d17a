"""Marks in Redis by which the workers divide their duties: who does a round, and how far a lap has come."""

from typing import NamedTuple
from uuid import UUID

import redis

from onelane import keys
from onelane.lanes.scripts import Scripts, text_of
from onelane.model import uuid_or_none

FIRST_USER = UUID(int=0)
"""Before all users."""


class Claim(NamedTuple):
    """What a worker learns that would do a duty."""

    is_ours: bool
    """Whether it is to do this round."""
    dead: int
    """How many dead messages and replies Redis keeps; 0 while another worker has the round."""
    laps_s: tuple[int, ...]
    """For how long the mark of each kind's last lap stays."""

    def are_reconciled(self, seconds: int) -> list[bool]:
        """Whether a lap of each kind was done in the last `seconds`."""
        return [_is_ours(left_s, seconds) for left_s in self.laps_s]


class Marks:
    """The marks. All of them may be lost: then a duty is done once more, or from its beginning."""

    def __init__(self, scripts: Scripts, kind: str) -> None:
        self._scripts = scripts
        self._client = scripts.client
        self._kind = kind

    def claim_duty(self, name: str, worker: str, seconds: float) -> Claim:
        """Take a duty for one round, unless another worker has it."""
        is_ours, dead, *laps_s = self._scripts.run("claim", name, worker, round(seconds * 1000))
        return Claim(bool(is_ours), dead, tuple(laps_s))

    def is_reconciled(self, seconds: int) -> bool:
        """Whether a lap over all waiting users was done in the last `seconds`, on this Redis."""
        left_s = self._scripts.ask(lambda: self._client.ttl(keys.reconciled(self._kind)))
        return _is_ours(left_s, seconds)

    def note_reconciled(self, seconds: int) -> None:
        """Note that a lap is done: the next begins with the first user, after `seconds`, or at once in a full Redis."""
        self._scripts.run("lap", "", seconds)

    def cursor(self) -> UUID:
        """Return the user after whom the lap goes on: FIRST_USER at its beginning, or when the mark is none of ours."""
        try:
            cursor = self._scripts.ask(lambda: self._client.get(keys.reconcile_cursor(self._kind)))
        except redis.exceptions.ResponseError:
            return FIRST_USER
        return uuid_or_none(text_of(cursor or "").partition(" ")[0]) or FIRST_USER

    def move_cursor(self, after: UUID, to: UUID, worker: str) -> bool:
        """Move the lap on from where it is; False when that is not behind `after` any more."""
        return bool(self._scripts.run("lap", to, 0, after, worker))

    def put_cursor_back(self, after: UUID) -> None:
        """Let the lap go on after this user once more."""
        self._scripts.run("lap", after, 0)


def _is_ours(left_s: int, seconds: int) -> bool:
    """Whether a mark is there; one that never ends, or too late, is none of ours."""
    return 0 <= left_s <= seconds
