"""The result of a claim, in a form that tables, plots and JSON share."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from bench.errors import BenchError
from bench.measuring import Rounds
from bench.plan import Plan

FILE = "results.json"


@dataclass(frozen=True)
class Goal:
    """A number to reach, and whether it was."""

    text: str
    measured: str
    is_reached: bool

    @classmethod
    def at_least(cls, text: str, least: float, measured: float, unit: str = "") -> Self:
        """Require no less."""
        return cls(f"{text}: at least {least:g}{unit}", f"{measured:.3g}{unit}", measured >= least)

    @classmethod
    def at_most(cls, text: str, most: float, measured: float, unit: str = "") -> Self:
        """Require no more."""
        return cls(f"{text}: at most {most:g}{unit}", f"{measured:.3g}{unit}", measured <= most)


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
            notes=notes,
            found=rounds.found,
            load=rounds.load,
            others_cpus=rounds.others_cpus,
            seconds=rounds.seconds,
            is_quick=plan.is_quick,
            runs=plan.runs,
            at=datetime.now(UTC).strftime("%Y-%m-%d %H:%MZ"),
            machine=f"{os.cpu_count()} CPUs, {platform.system()}, Python {platform.python_version()}",
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
