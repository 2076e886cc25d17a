"""Worker processes that start at once: forked from a program that has imported everything, one for each line it reads.

`python -m tests.forked_workers`, with a worker's environment. It answers a line with the process's id. What they send
is settled within seconds: see `outbound.hurry`.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx2
import pytest

from onelane.bootstrap import open_worker
from onelane.config import Settings
from onelane.turns.loading import load
from tests.conftest import ROOT
from tests.outbound import hurry
from tests.processes import environment

COMMAND = [sys.executable, "-m", "tests.forked_workers"]


class Forks:
    """Starts workers, and kills them."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._living: set[int] = set()

    def start(self) -> int:
        """Start a worker; return its process's id."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        pid = int(json.loads(self._process.stdout.readline()))
        self._living.add(pid)
        return pid

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a worker a signal."""
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        if number == signal.SIGKILL:
            self._living.discard(pid)

    def kill_all(self) -> None:
        """Leave nobody behind."""
        for pid in list(self._living):
            self.kill(pid)


@contextmanager
def forked_workers(settings: Settings, handler: str) -> Iterator[Forks]:
    """Run the program for the block's time, with these settings."""
    told = environment(settings, handler=handler, log_level="ERROR")
    pipe = subprocess.PIPE
    with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, cwd=ROOT, env=told, text=True) as process:
        forks = Forks(process)
        try:
            yield forks
        finally:
            forks.kill_all()
            process.kill()


def main() -> None:
    """Fork a worker for each line."""
    settings = Settings.from_environment()
    hurry(pytest.MonkeyPatch())
    for handler in settings.handlers:
        load(handler)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(2, 1)
            open_worker(settings).run()
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    assert httpx2  # a second's import, which no worker has to wait for
    main()
