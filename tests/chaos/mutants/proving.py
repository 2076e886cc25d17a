"""Plants each bug in a run of its own, and says which check found it. A bug that nothing finds is a failure.

What a bug needs to come out is left to chance, seeded: a run that finds nothing is repeated with the next seed, a few
times.
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
RUN_MAX_S = 600
EXIT_BROKEN = 1


@dataclass(frozen=True)
class Proof:
    """What became of one planted bug."""

    name: str
    seed: int
    runs: int
    found: dict[str, int]
    """How many violations each check found in the last run."""
    first: str
    seconds: float

    @property
    def is_seen(self) -> bool:
        """Whether a check found it that must."""
        return any(check in self.found for check in MUTANTS[self.name].seen_by)


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
    began = time.monotonic()
    for runs in range(1, RUNS_MAX + 1):
        found, first = _run(name, MUTANTS[name], seed + runs - 1)
        proof = Proof(name, seed + runs - 1, runs, found, first, time.monotonic() - began)
        if proof.is_seen:
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
    return f"  {verdict} after {proof.runs} run(s), {proof.seconds:.0f} s: {proof.found} {proof.first}"


def _table(proofs: Sequence[Proof]) -> str:
    """Word what was found as a table that a document can carry."""
    rows = ["| planted bug | takes away | faults | found by | first finding |", "|---|---|---|---|---|"]
    for proof in proofs:
        mutant = MUTANTS[proof.name]
        found = ", ".join(f"{check} ({count})" for check, count in proof.found.items()) or "nothing"
        seen = found if proof.is_seen else f"**not seen**: {found}"
        rows.append(
            f"| `{proof.name}` | {mutant.takes_away} | {', '.join(mutant.faults) or 'none'} | {seen} | {proof.first} |"
        )
    return "\n".join(rows)
