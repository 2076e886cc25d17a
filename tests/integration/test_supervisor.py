"""The process that keeps a worker alive, as a container's first one is: whoever loses a parent is its child then."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
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
    """Read whether a process runs, sleeps, or is a zombie (Z); Z as well when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux")
def test_it_leaves_no_zombies_and_ends_with_its_worker(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    first = subprocess.Popen([sys.executable, "-P", "-c", FIRST, ORPHANS], cwd=tmp_path)

    def only_child() -> int | None:
        """Return the worker, once it has started all that it starts, and that has been buried."""
        found = descendants(first.pid) if ready.exists() else []
        return found[0] if len(found) == 1 and state_of(found[0]) != "Z" else None

    try:
        worker = eventually(only_child)
        ready.unlink()
        os.kill(worker, signal.SIGKILL)
        assert eventually(only_child) != worker
        first.send_signal(signal.SIGTERM)
        assert first.wait(DEADLINE_S) == 0
    finally:
        for pid in [first.pid, *descendants(first.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        first.wait()
