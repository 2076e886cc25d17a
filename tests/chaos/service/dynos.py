"""A dyno: one program that a platform keeps running, with all its processes and its log.

Everything that a program starts stays in its session, which is how its processes are found, also as orphans. All of
this belongs into the main thread: the system ends a program when the *thread* that started it has ended.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from onelane.dev.embedded.child import command_line, descendants
from onelane.dev.stack import Stack

STOPS_S = 12.0
"""How long a release may take to end after it was asked to, before the platform kills it."""
LINGERS_S = 4.0
"""How long a dead head's orphans may live on before the platform sweeps the dyno."""
GOOD_ENDS = {0, -signal.SIGKILL, -signal.SIGTERM}
"""The last one is that of a program which had no time to say what it does on SIGTERM."""
SIGNS: Mapping[str, str] = {
    "process": "--unsupervised",
    "helper": "onelane.lanes.renewer",
    "isolated": "onelane.turns.isolated",
}
"""By what a worker's processes are known: a part of their command lines."""


class Release:
    """One start of a dyno's program."""

    def __init__(self, stack: Stack, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._child = stack.start(name, argv, environment, may_end=True)
        self.name = name
        self.pid = self._child.pid
        self.exit_code: int | None = None
        self._kill_at: float | None = None

    @property
    def is_running(self) -> bool:
        """Whether its first process lives."""
        is_running = self._child.is_running
        if not is_running and self.exit_code is None:
            self.exit_code = self._child.exit_code
        return is_running

    @property
    def is_overdue(self) -> bool:
        """Whether it, or what it has left, should have ended by now."""
        if self._kill_at is None and not self.is_running:
            self._kill_at = time.monotonic() + LINGERS_S
        return self._kill_at is not None and time.monotonic() > self._kill_at

    def ask_to_stop(self) -> None:
        """Send every process SIGTERM, and once more, as platforms do. Those that are stopped get it as well."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + STOPS_S
            for signum in (signal.SIGCONT, signal.SIGTERM, signal.SIGTERM):
                self._signal_all(signum)

    def sweep(self) -> str | None:
        """Kill whatever is left of it; say what was wrong with its end."""
        left = session_members(self.pid)
        problem: str | None = None
        if self.is_running:
            problem = "had to be killed"
        elif self.exit_code == 0 and left:
            problem = f"left {len(left)} processes behind"
        elif self.exit_code not in GOOD_ENDS:
            problem = f"ended with {self.exit_code}"
        self._signal_all(signal.SIGKILL)
        self._child.kill()
        return problem and f"{self.name} {problem}"

    def _signal_all(self, signum: signal.Signals) -> None:
        for pid in session_members(self.pid):
            send(pid, signum)


class Dyno:
    """A program that is started again when it has ended; one that is not `endless` may end with success."""

    def __init__(
        self, stack: Stack, name: str, argv: Sequence[str], environment: Mapping[str, str], *, is_endless: bool
    ) -> None:
        self.name = name
        self._stack, self._argv, self._environment = stack, argv, environment
        self._is_endless = is_endless
        self._releases: list[Release] = []
        self._started = 0
        self.problems: list[str] = []
        """Ends that were neither asked for nor a kill."""

    @property
    def was_started(self) -> bool:
        """Whether it has a release."""
        return bool(self._releases)

    @property
    def is_well(self) -> bool:
        """Whether only one release is left, which runs, or has done what it was for."""
        return len(self._releases) == 1 and (self._releases[0].is_running or self.is_done)

    @property
    def is_done(self) -> bool:
        """Whether it has ended with success, and is to stay so."""
        newest = self._releases[-1] if self._releases else None
        return newest is not None and not self._is_endless and not newest.is_running and newest.exit_code == 0

    @property
    def is_alone(self) -> bool:
        """Whether only the newest release is left."""
        return len(self._releases) <= 1

    def pids(self, role: str) -> list[int]:
        """Find the newest release's processes of a role: `head`, `child` (any other), or one of SIGNS."""
        release = self._releases[-1]
        if not release.is_running:
            return []
        if role == "head":
            return [release.pid]
        others = descendants(release.pid)
        return others if role == "child" else [pid for pid in others if SIGNS[role] in command_line(pid)]

    def start(self) -> None:
        """Start a release beside those that run."""
        self._started += 1
        name = f"{self.name}.{self._started}"
        self._releases.append(Release(self._stack, name, self._argv, self._environment))

    def retire(self) -> None:
        """Ask the releases before the newest to end."""
        for release in self._releases[:-1]:
            release.ask_to_stop()

    def tend(self) -> None:
        """Start it again if it died; forget what has ended, kill what should have."""
        if not self._releases:
            return
        if not self._releases[-1].is_running and not self.is_done:
            self.start()
        for release in self._releases[:-1]:
            if release.is_overdue or not session_members(release.pid):
                self._forget(release)

    def sweep(self) -> None:
        """Kill the releases before the newest, as a platform does with a dyno whose head has died."""
        for release in self._releases[:-1]:
            self._forget(release)

    def ask_to_stop(self) -> None:
        """Ask all releases to end."""
        for release in self._releases:
            release.ask_to_stop()

    def await_stop(self) -> None:
        """Wait until all releases have ended or are overdue, and forget them."""
        for release in self._releases[:]:
            while release.is_running and not release.is_overdue:
                time.sleep(0.02)
            self._forget(release)

    def kill(self) -> None:
        """End everything of it at once."""
        for release in self._releases:
            release.sweep()
        self._releases.clear()

    def _forget(self, release: Release) -> None:
        if problem := release.sweep():
            self.problems.append(problem)
        self._releases.remove(release)


def session_members(leader: int) -> list[int]:
    """List the living processes of a session; its leader may be dead."""
    return sorted(pid for pid in all_pids() if _living_session(pid) == leader)


def all_pids() -> list[int]:
    """List all processes of this machine."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def is_living(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    return _living_session(pid) is not None


def age_s(pid: int) -> float:
    """Return how long ago a process began; 0 for one that has ended."""
    with suppress(OSError):
        return time.time() - Path(f"/proc/{pid}").stat().st_ctime
    return 0.0


def send(pid: int, signum: signal.Signals) -> None:
    """Send a signal; a process that has ended gets none."""
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def _living_session(pid: int) -> int | None:
    try:
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return None
    return None if state == "Z" else int(session)
