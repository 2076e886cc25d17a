"""The chaos harness itself, in short: what `make chaos` does for minutes and with every fault."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

RUN_MAX_S = 240
"""What the slowest machine may take; the harness has bounds of its own."""


@pytest.mark.parametrize(
    "options",
    [
        ["--minutes", "0.05", "--no-faults"],
        ["--minutes", "0.15", "--only", "kill-worker,freeze-worker,lose-redis,restart-postgres,cut,drop-reply"],
    ],
    ids=["in calm", "in a storm"],
)
def test_a_short_run_breaks_no_promise(options):
    run = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "run", "--seed", "7", *options],
        check=False,
        capture_output=True,
        cwd=ROOT,
        text=True,
        timeout=RUN_MAX_S,
    )
    assert run.returncode == 0, run.stdout + run.stderr
