"""The chaos harness itself, in short: what `make chaos` does for minutes and with every fault."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

FAULTS = "kill-worker,freeze-worker,lose-redis,restart-postgres,cut,drop-reply"
RUN_MAX_S = 240
"""What the slowest machine may take; the harness has bounds of its own."""


@pytest.mark.slow
def test_a_short_storm_breaks_no_promise() -> None:
    """Without a calm: how soon a message is begun is not for a machine that runs other tests beside this one."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "run", "--seed", "7", "--minutes", "0.15", "--only", FAULTS],
        check=False,
        capture_output=True,
        cwd=ROOT,
        text=True,
        timeout=RUN_MAX_S,
    )
    assert run.returncode == 0, run.stdout + run.stderr
