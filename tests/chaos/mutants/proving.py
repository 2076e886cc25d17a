"""Plants each bug in runs of its own, and says which check found it. A bug that is not found often enough is a failure.

What a bug needs to come out is left to chance, seeded: it has three seeds, and must be found with two of them by a
check that is there for it. What such a check finds counts only if it finds nothing in a run that is the same but for
the bug: else it was not the bug that was found.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click

from tests.chaos.mutants.catalogue import MUTANTS, Mutant
from tests.conftest import ROOT

RUNS_MAX = 3
FOUND_MIN = 2
RUN_MAX_S = 600
EXIT_BROKEN = 1


@dataclass(frozen=True)
class Proof:
    """What became of one planted bug."""

    name: str
    found: list[dict[str, int]]
    """Of each run: how many violations each check found."""
    without: list[dict[str, int]]
    """The same of each run without the bug; nothing where none was needed."""
    first: str
    """The first sentence of a check that must find it."""
    seconds: float

    @property
    def seen(self) -> int:
        """Count the runs in which a check found it that must, and that found nothing without it."""
        return sum(
            any(check in run and check not in control for check in MUTANTS[self.name].seen_by)
            for run, control in zip(self.found, self.without, strict=True)
        )

    @property
    def is_seen(self) -> bool:
        """Whether that was often enough."""
        return self.seen >= FOUND_MIN


def main(names: Sequence[str] = (), seed: int = 1) -> int:
    """Prove the bugs of these names, or all; print a table; return the exit code."""
    proofs = []
    for name in names or MUTANTS:
        click.echo(f"{name}: without {MUTANTS[name].takes_away}", err=True)
        proofs.append(_prove(name, seed))
        click.echo(_line(proofs[-1]), err=True)
    click.echo(_table(proofs))
    return 0 if all(proof.is_seen for proof in proofs) else EXIT_BROKEN


def _prove(name: str, seed: int) -> Proof:
    """Make runs until the verdict cannot change any more."""
    began = time.monotonic()
    proof, mutant = Proof(name, [], [], "", 0.0), MUTANTS[name]
    for nr in range(RUNS_MAX):
        found, first = _run(name, mutant, seed + nr)
        is_found = any(check in found for check in mutant.seen_by)
        control = _control(mutant.faults, mutant.minutes, mutant.rate, seed + nr) if is_found else {}
        found_by_now, without = [*proof.found, found], [*proof.without, control]
        proof = Proof(name, found_by_now, without, proof.first or first, time.monotonic() - began)
        if proof.is_seen or proof.seen + RUNS_MAX - nr - 1 < FOUND_MIN:
            break
    return proof


def _run(name: str, mutant: Mutant, seed: int) -> tuple[dict[str, int], str]:
    """Make one run; count its violations by check, and return the first sentence of a check that must find the bug."""
    violations, problem = _violations(["--mutant", name, *_argv(mutant.faults, mutant.minutes, mutant.rate, seed)])
    expected = [violation["sentence"] for violation in violations if violation["promise"] in mutant.seen_by]
    return _by_check(violations), problem or (expected or [""])[0]


@cache
def _control(faults: tuple[str, ...], minutes: float, rate: float | None, seed: int) -> dict[str, int]:
    """Make the same run without a bug; one that fails counts as one in which every check found something."""
    violations, problem = _violations(_argv(faults, minutes, rate, seed))
    return dict.fromkeys(_checks(), 1) if problem else _by_check(violations)


def _argv(faults: Sequence[str], minutes: float, rate: float | None, seed: int) -> list[str]:
    of_faults = ["--only", ",".join(faults)] if faults else ["--no-faults"]
    return ["--seed", str(seed), "--minutes", str(minutes), *of_faults, *(["--rate", str(rate)] if rate else [])]


def _violations(argv: Sequence[str]) -> tuple[list[dict[str, str]], str]:
    """Make a run; return what it found, and why it could not be made, if so."""
    folder = Path(tempfile.mkdtemp(prefix="onelane-mutant-")) / "run"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos", "run", *argv, "--folder", str(folder)],
            cwd=ROOT,
            timeout=RUN_MAX_S,
            check=False,
            capture_output=True,
            text=True,
        )
        report = folder / "report.json"
        if done.returncode not in {0, EXIT_BROKEN} or not report.exists():
            return [], f"the run itself failed: {done.stderr[-500:]}"
        return json.loads(report.read_text())["violations"], ""
    except (subprocess.TimeoutExpired, OSError) as error:
        return [], f"the run itself failed: {type(error).__name__}"
    finally:
        shutil.rmtree(folder.parent)


def _by_check(violations: Sequence[dict[str, str]]) -> dict[str, int]:
    return dict(sorted(Counter(violation["promise"] for violation in violations).items()))


def _checks() -> frozenset[str]:
    return frozenset(check for mutant in MUTANTS.values() for check in mutant.seen_by)


def _line(proof: Proof) -> str:
    verdict = "red" if proof.is_seen else "NOT SEEN"
    runs = f"{proof.seen} of {len(proof.found)} run(s), {proof.seconds:.0f} s"
    without = "; ".join(map(_counted, proof.without))
    return f"  {verdict} in {runs}: {'; '.join(map(_counted, proof.found))} (without it {without}): {proof.first}"


def _table(proofs: Sequence[Proof]) -> str:
    """Word what was found as a table that a document can carry."""
    rows = ["| planted bug | takes away | faults | seen in | found by | first finding |", "|---|---|---|---|---|---|"]
    for proof in proofs:
        mutant = MUTANTS[proof.name]
        seen = f"{proof.seen} of {len(proof.found)}" if proof.is_seen else f"**{proof.seen} of {len(proof.found)}**"
        found = "; ".join(map(_counted, proof.found))
        faults = ", ".join(mutant.faults) or "none"
        rows.append(f"| `{proof.name}` | {mutant.takes_away} | {faults} | {seen} | {found} | {proof.first} |")
    return "\n".join(rows)


def _counted(found: dict[str, int]) -> str:
    return ", ".join(f"{check} ({count})" for check, count in found.items()) or "nothing"
