"""Carries a schedule out: begins, steps and ends faults, notes calms, and keeps the stack running meanwhile."""

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import psycopg
import redis

from tests.chaos.faults.catalogue import FAULTS
from tests.chaos.faults.schedule import SETTLE_S, Calm, Planned, Schedule
from tests.chaos.faults.strike import Steps, Strike
from tests.chaos.history import Recorder
from tests.chaos.progress import Progress
from tests.chaos.service.stack import Stack

QUIET = "quiet"
"""A file in the history: while it is there, the provider sends nothing that makes the bot hang or crash."""
TICK_S = 0.02
TEND_S = 0.2
LOOK_S = 0.1


@dataclass
class Struck:
    """A fault that has begun."""

    planned: Planned
    strike: Strike
    steps: Steps


@dataclass
class Storm:
    """The faults of one run. Leaving the block heals those that last, whatever happened in it."""

    stack: Stack
    schedule: Schedule
    recorder: Recorder
    progress: Progress
    _began_at: float = field(default_factory=time.monotonic)
    _tended_at: float = 0.0
    _looked_at: float = 0.0
    _waiting: list[tuple[Planned, Strike]] = field(default_factory=list)
    _active: list[Struck] = field(default_factory=list)
    _is_calm: bool = False

    def __post_init__(self) -> None:
        self._to_come = deque(self.schedule.faults)
        self._calms = deque(self.schedule.calms)

    @property
    def elapsed_s(self) -> float:
        """How old the storm is."""
        return time.monotonic() - self._began_at

    @property
    def names(self) -> list[str]:
        """Name the faults that last."""
        return ["calm"] if self._is_calm else [f"{one.planned.name} {one.planned.target}" for one in self._active]

    def rage(self) -> None:
        """Carry everything out; return when the time is over and every fault healed."""
        while self.elapsed_s < self.schedule.lasts_s or self._active:
            self._step()
            self.progress.show("storm", self.names)
            time.sleep(TICK_S)
        self._end_calm()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._active:
            one.steps.close()

    def _step(self) -> None:
        self._begin_due()
        for one in list(self._active):
            self._advance(one)
        self._keep_calm()
        if time.monotonic() - self._tended_at > TEND_S:
            self.stack.tend()
            self._tended_at = time.monotonic()

    def _begin_due(self) -> None:
        """Begin what is due, once its place is free and its target there; give up what has waited too long."""
        while self._to_come and self._to_come[0].begins_s <= self.elapsed_s:
            planned = self._to_come.popleft()
            self._waiting.append((planned, Strike(self.stack, planned.target, planned.lasts_s, Random(planned.dice))))
        if self._waiting and time.monotonic() - self._looked_at > LOOK_S:
            self._looked_at = time.monotonic()
            self._begin_waiting()

    def _begin_waiting(self) -> None:
        for planned, strike in list(self._waiting):
            if self.elapsed_s > planned.expires_s:
                self._waiting.remove((planned, strike))
                self.recorder.note(
                    "skipped", name=planned.name, target=planned.target, is_taken=not self._is_free(strike)
                )
            elif self._can_begin(planned, strike):
                self._waiting.remove((planned, strike))
                self._begin(planned, strike)

    def _can_begin(self, planned: Planned, strike: Strike) -> bool:
        return self._is_free(strike) and (not FAULTS[planned.name].needs_process or strike.find())

    def _is_free(self, strike: Strike) -> bool:
        """Whether nothing else strikes the same place."""
        return all(one.strike.place != strike.place for one in self._active)

    def _begin(self, planned: Planned, strike: Strike) -> None:
        self._note(planned, phase="begin", pids=strike.struck)
        strike.began_at = time.monotonic()
        self._active.append(Struck(planned, strike, FAULTS[planned.name].strike(strike)))

    def _advance(self, one: Struck) -> None:
        try:
            next(one.steps)
        except StopIteration:
            self._end(one)
        except (psycopg.Error, redis.RedisError) as error:
            self.progress.say(f"{one.planned.name} missed: {type(error).__name__}")
            one.strike.is_missed = True
            self._end(one)

    def _end(self, one: Struck) -> None:
        self._active.remove(one)
        strike = one.strike
        self._note(
            one.planned,
            phase="end",
            pids=strike.struck,
            survived=strike.survived,
            user_id=strike.user_id,
            is_missed=strike.is_missed,
            detail=strike.detail,
            flushed_at=strike.flushed_at,
        )

    def _note(self, planned: Planned, **fields: object) -> None:
        self.recorder.note("fault", span=planned.span, name=planned.name, target=planned.target, **fields)

    def _keep_calm(self) -> None:
        """Begin a calm only when nothing is left of the faults before it, and end it in time."""
        if not self._calms:
            return
        calm: Calm = self._calms[0]
        if self.elapsed_s >= calm.ends_s:
            self._calms.popleft()
            self._end_calm()
        elif self.elapsed_s >= calm.begins_s:
            self._begin_calm()
        elif self.elapsed_s >= calm.begins_s - SETTLE_S:
            self._quiet.touch()

    def _begin_calm(self) -> None:
        self._quiet.touch()
        if not self._is_calm and not self._active and self.stack.is_ready():
            self._is_calm = True
            self.recorder.note("calm", phase="begin")

    def _end_calm(self) -> None:
        self._quiet.unlink(missing_ok=True)
        if self._is_calm:
            self._is_calm = False
            self.recorder.note("calm", phase="end")

    @property
    def _quiet(self) -> Path:
        return self.stack.folder.history / QUIET
