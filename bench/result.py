"""The result of a claim, in a form that tables, plots and JSON share."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Self

from bench import machine
from bench.errors import BenchError
from bench.measuring import Rounds
from bench.plan import Plan

FILE = "results.json"
FLOOR = " (floor)"
"""Ends the name of a goal that must be reached."""
DIGITS_MIN, DIGITS_MAX = 3, 17
BUSY_CPUS = 0.2
Measured = float | Sequence[float] | None
"""One figure, or one of each round, whose median counts; None when nobody measured it."""


@dataclass(frozen=True)
class Goal:
    """A number to reach, and whether it was."""

    text: str
    measured: str
    """Empty when nobody measured it."""
    is_reached: bool
    spread: str = ""
    """From the least to the most of the rounds."""

    @property
    def is_missed_floor(self) -> bool:
        """Whether it must be reached, and was not."""
        return FLOOR in self.text and bool(self.measured) and not self.is_reached

    @classmethod
    def at_least(cls, text: str, least: float, measured: Measured, unit: str = "") -> Self:
        """Require no less."""
        return cls._of(f"{text}: at least {least:,g}{unit}", least, measured, unit, lambda value: value >= least)

    @classmethod
    def at_most(cls, text: str, most: float, measured: Measured, unit: str = "") -> Self:
        """Require no more."""
        return cls._of(f"{text}: at most {most:,g}{unit}", most, measured, unit, lambda value: value <= most)

    @classmethod
    def _of(cls, text: str, limit: float, measured: Measured, unit: str, test: Callable[[float], bool]) -> Self:
        if measured is None:
            return cls(text, "", is_reached=False)
        rounds = list(measured) if isinstance(measured, Sequence) else [measured]
        value = median(rounds)
        spread = f"{_shown(min(rounds), limit)} to {_shown(max(rounds), limit)}" if len(rounds) > 1 else ""
        return cls(text, f"{_shown(value, limit)}{unit}", test(value), spread)


def _shown(figure: float, limit: float) -> str:
    """Format a figure with three digits, all that it has before the point, or as many as tell it from the limit."""
    least = max(DIGITS_MIN, len(f"{abs(figure):.0f}"))
    texts = [f"{figure:,.{digits}g}" for digits in range(least, DIGITS_MAX + 1)]
    return next(text for text in texts if (float(text.replace(",", "")) == limit) == (figure == limit))


@dataclass(frozen=True)
class Result:
    """One claim's table, and everything behind it."""

    claim: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    goals: list[Goal]
    notes: list[str]
    found: Mapping[str, list[dict[str, Any]]]
    """Each contestant's figures, one entry a round."""
    load: list[float]
    others_cpus: list[float]
    seconds: float
    is_quick: bool
    runs: int
    at: str
    machine: str
    is_busy: bool = False
    """Whether others used so much of the machine that figures mean less."""
    failed: Sequence[str] = ()
    """Peers that failed: their figures are missing."""

    @classmethod
    def of(
        cls,
        plan: Plan,
        claim: str,
        title: str,
        rounds: Rounds,
        *,
        columns: list[str],
        row: Callable[[Rounds, str], list[str]],
        notes: list[str],
        goals: Sequence[Goal] = (),
    ) -> Self:
        """Combine what a script found with the time and the machine; `row` makes a contestant's row of the table."""
        return cls(
            claim=claim,
            title=title,
            columns=columns,
            rows=[row(rounds, name) for name in rounds.found],
            goals=list(goals),
            notes=[*notes, *(f"Failed, and not measured: {name} ({how})." for name, how in rounds.failed.items())],
            found=rounds.found,
            load=rounds.load,
            others_cpus=rounds.others_cpus,
            seconds=rounds.seconds,
            is_quick=plan.is_quick,
            runs=plan.runs,
            at=datetime.now(UTC).strftime("%Y-%m-%d %H:%MZ"),
            machine=machine.described(),
            is_busy=bool(rounds.others_cpus) and median(rounds.others_cpus) > BUSY_CPUS,
            failed=list(rounds.failed),
        )

    @classmethod
    def read(cls, value: dict[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        return cls(**{**value, "goals": [Goal(**goal) for goal in value["goals"]]})


def load(folder: Path) -> dict[str, Result]:
    """Read the results of earlier runs, by claim; raise BenchError when an older `bench` wrote them."""
    path = folder / FILE
    values = json.loads(path.read_text()) if path.exists() else {}
    try:
        return {claim: Result.read(value) for claim, value in values.items()}
    except TypeError:
        raise BenchError(f"{path} is of another form: remove it") from None


def save(folder: Path, results: Mapping[str, Result]) -> None:
    """Write all results."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {claim: asdict(results[claim]) for claim in sorted(results)}
    (folder / FILE).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
