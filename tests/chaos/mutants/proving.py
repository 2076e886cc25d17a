"""Plants each bug in runs of its own, and says which check found it. A bug that is not found often enough is a failure.

What a bug needs to come out is left to chance, seeded: it has three seeds, and must be found with two of them by a
check that is there for it.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
    first: str
    """The first sentence of a check that must find it."""
    seconds: float

    @property
    def seen(self) -> int:
        """Count the runs in which a check found it that must."""
        return sum(any(check in run for check in MUTANTS[self.name].seen_by) for run in self.found)

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
    proof = Proof(name, [], "", 0.0)
    for nr in range(RUNS_MAX):
        found, first = _run(name, MUTANTS[name], seed + nr)
        proof = Proof(name, [*proof.found, found], proof.first or first, time.monotonic() - began)
        if proof.is_seen or proof.seen + RUNS_MAX - nr - 1 < FOUND_MIN:
            break
    return proof


def _run(name: str, mutant: Mutant, seed: int) -> tuple[dict[str, int], str]:
    """Make one run; count its violations by check, and return the first one's sentence."""
    folder = Path(tempfile.mkdtemp(prefix="onelane-mutant-")) / "run"
    argv = ["--mutant", name, "--seed", str(seed), "--minutes", str(mutant.minutes), "--folder", str(folder)]
    argv += ["--only", ",".join(mutant.faults)] if mutant.faults else ["--no-faults"]
    argv += ["--rate", str(mutant.rate)] if mutant.rate else []
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos", "run", *argv],
            cwd=ROOT,
            timeout=RUN_MAX_S,
            check=False,
            capture_output=True,
            text=True,
        )
        report = folder / "report.json"
        if done.returncode not in {0, EXIT_BROKEN} or not report.exists():
            return {}, f"the run itself failed: {done.stderr[-500:]}"
        violations = json.loads(report.read_text())["violations"]
    except (subprocess.TimeoutExpired, OSError) as error:
        return {}, f"the run itself failed: {type(error).__name__}"
    finally:
        shutil.rmtree(folder.parent)
    checks = [violation["promise"] for violation in violations]
    expected = [violation["sentence"] for violation in violations if violation["promise"] in mutant.seen_by]
    return {check: checks.count(check) for check in sorted(set(checks))}, (expected or [""])[0]


def _line(proof: Proof) -> str:
    verdict = "red" if proof.is_seen else "NOT SEEN"
    runs = f"{proof.seen} of {len(proof.found)} run(s), {proof.seconds:.0f} s"
    return f"  {verdict} in {runs}: {'; '.join(map(_counted, proof.found))}: {proof.first}"


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
