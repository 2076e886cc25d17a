"""The process that keeps a worker alive, as a container's first one is: whoever loses a parent is its child then."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onelane.dev.embedded.child import descendants
from tests.conftest import DEADLINE_S, eventually

FIRST = """
import ctypes, sys
from onelane.processes.supervisor import Supervisor
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
sys.exit(Supervisor(["sh", "-c", sys.argv[1]], 30.0).run())
"""
ORPHANS = "(true &); (true &); echo > ready; exec sleep 1000"
"""A worker, and two processes whose parents have ended."""


def state_of(pid: int) -> str:
    """Read whether a process runs, sleeps, or is a zombie (Z)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux")
def test_it_leaves_no_zombies_and_ends_with_its_worker(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-P", "-c", FIRST, ORPHANS], cwd=tmp_path)
    try:
        eventually((tmp_path / "ready").exists)
        eventually(lambda: len(descendants(first.pid)) == 1)
        [worker] = descendants(first.pid)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: descendants(first.pid) not in ([], [worker]) and len(descendants(first.pid)) == 1)
        assert state_of(*descendants(first.pid)) != "Z"
        first.send_signal(signal.SIGTERM)
        assert first.wait(DEADLINE_S) == 0
    finally:
        first.kill()
        first.wait()
