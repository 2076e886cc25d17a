"""Who is answered together, thrown away and convicted, in plain Python: shares nothing with the SQL that it judges.

One user on one channel. What an operator has noted on a waiting message is a fact here (`ends`, `escalates`), as is the
time at which it was accepted: the model of the policy judges those.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

ATTEMPTS_MAX = 3
CLAIMED_MAX = 100


class Channel(NamedTuple):
    """How a channel answers who writes faster than it does."""

    batch_max: int = 1
    interrupt_max: int | None = None
    """None where newer messages interrupt nothing."""
    idle: timedelta = timedelta(hours=1)
    max_age: timedelta = timedelta(hours=3)


@dataclass
class Waiting:
    """A message that waits."""

    seq: int
    at: datetime
    closes: bool = False
    is_redriven: bool = False
    ends: bool = False
    escalates: bool = False
    frozen_to: int | None = None
    """The last of the batch whose first it is, once that has begun."""
    attempts: int = 0
    superseded: int = 0


@dataclass
class Running:
    """A batch in the hands of a worker, which may be the only one to believe so."""

    fence: int
    version: int
    seqs: list[int]
    started_at: datetime
    """Of its session."""
    frozen_to: int
    attempts: int
    superseded: int
    steps: dict[str, Any] = field(default_factory=dict)
    """What the handler was given as the results of its steps."""


class Batches:
    """What a user's messages become."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.waiting: dict[int, Waiting] = {}
        self.fence = 0
        self.version = 0
        self.committed: list[list[int]] = []
        self.dead: list[int] = []
        self.steps: dict[tuple[int, int], dict[str, Any]] = {}
        """By the first and the last of the batch."""

    def accept(self, seq: int, at: datetime, *, closes: bool = False, is_redriven: bool = False) -> None:
        """Let a message wait."""
        self.waiting[seq] = Waiting(seq, at, closes, is_redriven)

    def joins(self, started_at: datetime, before: Waiting, message: Waiting) -> bool:
        """Tell whether a message is answered together with the one before it."""
        is_new_session = message.at - before.at >= self.channel.idle or message.at - started_at >= self.channel.max_age
        alone = (before.closes, before.ends, before.is_redriven, before.escalates)
        return not (
            is_new_session
            or any(alone)
            or message.closes
            or message.is_redriven
            or message.escalates
            or message.frozen_to is not None
        )

    def begin(self, fence: int, *, taken_over: bool, started_at: Callable[[], datetime]) -> Running | str:
        """Hand out the lowest batch, or say why not."""
        if fence < self.fence:
            return "fenced"
        if not self.waiting:
            return "idle"
        lowest = self.waiting[min(self.waiting)]
        if taken_over or lowest.is_redriven:
            self.fence = fence
        since = started_at()
        if lowest.frozen_to is None and self.channel.batch_max > 1:
            lowest.frozen_to = self._reach(since, lowest, self.channel.batch_max - 1)
        last = lowest.frozen_to or lowest.seq
        seqs = [seq for seq in sorted(self.waiting) if lowest.seq <= seq <= last]
        return Running(fence, self.version, seqs, since, last, lowest.attempts, lowest.superseded)

    def settle(self, turn: Running, *, fails: bool, is_shielded: bool) -> str:
        """Commit a turn, or note that it failed."""
        if refusal := self._refusal(turn):
            return refusal
        lowest = self.waiting[turn.seqs[0]]
        if not fails and not is_shielded and self._is_superseded(turn, lowest):
            return "superseded"
        self.fence = turn.fence
        if fails:
            return self._fail(turn, lowest)
        self._leave(turn.seqs)
        self.committed.append(turn.seqs)
        return "committed"

    def claim(self, turn: Running) -> tuple[str, list[int]]:
        """Take what has arrived since into a turn."""
        if refusal := self._refusal(turn):
            return refusal, []
        lowest, before = self.waiting[turn.seqs[0]], turn.seqs[-1]
        last = self._reach(turn.started_at, self.waiting[max(lowest.frozen_to or 0, before)], CLAIMED_MAX)
        if last > before:
            lowest.frozen_to, self.fence = last, turn.fence
        claimed = [seq for seq in sorted(self.waiting) if before < seq <= last]
        turn.seqs = [*turn.seqs, *claimed]
        return "claimed", claimed

    def step(self, turn: Running, key: str, value: Any) -> tuple[str, Any]:
        """Keep what a step came to; the first result of a batch stands."""
        if refusal := self._refusal(turn):
            return refusal, None
        return "kept", self.steps.setdefault((turn.seqs[0], turn.frozen_to), {}).setdefault(key, value)

    def _refusal(self, turn: Running) -> str | None:
        if turn.seqs[0] not in self.waiting:
            return "already"
        if turn.fence < self.fence:
            return "fenced"
        return "stale" if turn.version != self.version else None

    def _is_superseded(self, turn: Running, lowest: Waiting) -> bool:
        most = self.channel.interrupt_max
        if most is None:
            return False
        if lowest.superseded > turn.superseded and lowest.frozen_to != turn.seqs[-1]:
            return True  # asked again
        is_full = len(turn.seqs) >= self.channel.batch_max
        if turn.superseded >= most or is_full:
            return False
        if self._reach(turn.started_at, self.waiting[turn.seqs[-1]], 1) == turn.seqs[-1]:
            return False
        lowest.frozen_to, self.fence = None, turn.fence
        lowest.superseded += 1
        self._forget_steps([lowest.seq])
        return True

    def _fail(self, turn: Running, lowest: Waiting) -> str:
        lowest.attempts += lowest.attempts == turn.attempts
        if lowest.attempts < ATTEMPTS_MAX:
            return "retry"
        if len(turn.seqs) > 1:
            for seq in turn.seqs:
                self.waiting[seq].frozen_to, self.waiting[seq].attempts = seq, ATTEMPTS_MAX - 1
            return "retry"
        self._leave(turn.seqs)
        self.dead += turn.seqs
        return "dead"

    def _leave(self, seqs: Sequence[int]) -> None:
        self._forget_steps(seqs)
        for seq in seqs:
            del self.waiting[seq]
        self.version += len(seqs)

    def _forget_steps(self, firsts: Iterable[int]) -> None:
        gone = set(firsts)
        self.steps = {batch: kept for batch, kept in self.steps.items() if batch[0] not in gone}

    def _reach(self, started_at: datetime, last: Waiting, most: int) -> int:
        """Find how far those reach that join one after the other."""
        for seq in [seq for seq in sorted(self.waiting) if seq > last.seq][:most]:
            if not self.joins(started_at, last, self.waiting[seq]):
                break
            last = self.waiting[seq]
        return last.seq
