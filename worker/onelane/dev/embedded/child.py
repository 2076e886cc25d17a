"""A process that we start and answer for: its log, its leftover after a killed run, its bounded end."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from onelane.errors import EmbeddedServerError

POLL_S = 0.02
LEFTOVER_STOP_S = 15.0
KILL_S = 5.0
TRIAL_S = 10.0


class Child:
    """One process in a session of its own, so that a terminal's Ctrl-C reaches only us.

    Its output goes to `<folder>/<name>.log`. Beside it `<name>.pid` says who it is: there a later start finds
    what a killed run has left, and stops it. On Linux the system asks it to stop when we die, however we die.
    """

    def __init__(self, name: str, folder: Path, *, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._note = folder / f"{name}.pid"
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._read_to: int | None = None

    @property
    def pid(self) -> int:
        """Answer the process's id; it must have been started."""
        return self._started.pid

    @property
    def exit_code(self) -> int | None:
        """Answer how it ended, None while it runs; minus a signal's number when that ended it."""
        return self._started.poll()

    @property
    def is_running(self) -> bool:
        """Answer whether it was started and lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def has_died(self) -> bool:
        """Answer whether it has ended, and nobody here has stopped it."""
        return self._process is not None and self._process.poll() is not None

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    def start(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        run_as: Sequence[str] = (),
    ) -> None:
        """Start `argv` behind the command `run_as`, which changes the user; raise OSError when that fails."""
        self.stop_leftover()
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._read_to = 0
        try:
            self._process = subprocess.Popen(
                [*run_as, *_ends_with_us(self._stop_signal), *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        finally:
            os.close(log)
        self._note.write_text(json.dumps({"pid": self._process.pid, "argv": argv}), encoding="utf-8")

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.is_running:
            self._started.send_signal(number)

    def ask_to_stop(self) -> None:
        """Send it its stop signal, and do not wait."""
        self.send_signal(self._stop_signal)

    def wait(self, within_s: float) -> int:
        """Wait for its end, and return its exit code; raise subprocess.TimeoutExpired."""
        return self._started.wait(within_s)

    def stop(self, within_s: float) -> None:
        """Ask it to stop, and kill what has not ended in time; without time, kill it at once."""
        if self._process is None:
            return
        if within_s > 0:
            self.ask_to_stop()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)
        self.kill()

    def kill(self) -> None:
        """End it at once with everything it started, as a crash would."""
        if self._process is None:
            return
        if self.is_running:
            _kill_family(self._process.pid)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # what outlived its head of family
        with suppress(subprocess.TimeoutExpired):  # what the system cannot end is not waited for
            self._process.wait(KILL_S)
        self._process = None
        self._note.unlink(missing_ok=True)

    def stop_leftover(self) -> None:
        """Stop the process that an earlier, killed run has left, if it still is the one of the note."""
        pid = self._leftover()
        if pid is None:
            return
        try:
            os.kill(pid, self._stop_signal)
        except ProcessLookupError:
            return
        except PermissionError:
            raise EmbeddedServerError(
                f"{self.name} of an earlier run still runs as another user (process {pid}): stop it first"
            ) from None
        if not wait_until(lambda: self._leftover() is None, LEFTOVER_STOP_S):
            _kill_family(pid)
            wait_until(lambda: self._leftover() is None, LEFTOVER_STOP_S)

    def _leftover(self) -> int | None:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return note["pid"] if command_line(note["pid"]) == note["argv"] else None

    def new_lines(self) -> list[str]:
        """Read the whole lines that its log has gained since the last call, or since we started it."""
        if self._read_to is None:
            return []
        with self.log.open("rb") as log:
            log.seek(self._read_to)
            text, newline, _ = log.read().rpartition(b"\n")
        self._read_to += len(text) + len(newline)
        return text.decode(errors="replace").splitlines()

    def last_lines(self, count: int = 12) -> str:
        """Read the end of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        except OSError:
            return ""


def stop_all(children: Sequence[Child], within_s: float) -> None:
    """Ask all to stop, wait for them together, and kill those that have not ended in time."""
    deadline = time.monotonic() + within_s
    if within_s > 0:
        for child in children:
            child.ask_to_stop()
    for child in children:
        child.stop(deadline - time.monotonic())


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait for `condition`, at most `within_s`; answer whether it came true."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def command_line(pid: int) -> list[str]:
    """Read a process's command line; empty when there is none, or where the system has no /proc."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")[:-1]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """List the processes that a process has started, and theirs; none where the system has no /proc."""
    children = children_of(pid)
    return [*children, *(grandchild for child in children for grandchild in descendants(child))]


def children_of(pid: int) -> list[int]:
    """List the processes that a process has started, and that still are its own."""
    found: list[int] = []
    with suppress(OSError):  # it ends meanwhile
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, thread.read_text(encoding="utf-8").split())
    return found


def _kill_family(pid: int) -> None:
    """Kill a process and all its descendants, and wait for their end: PostgreSQL's live in sessions of their own."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # what it would start now would be missed
        wait_until(lambda: _state_of(pid) in {"", "T", "Z", "X"}, KILL_S)
    family = [pid, *descendants(pid)]
    for member in family:
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
    wait_until(lambda: {_state_of(member) for member in family} <= {"", "Z", "X"}, KILL_S)


def _state_of(pid: int) -> str:
    """Read whether a process is stopped (T), a zombie (Z), …; empty when there is none, or no /proc."""
    stat = ""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return "".join(stat.rpartition(")")[2].split()[:1])


def _ends_with_us(stop_signal: signal.Signals) -> list[str]:
    """Name the command that asks the system to send `stop_signal` when we die.

    The system takes the death of the *thread* that started the process for ours, so other threads go without.
    """
    if not _can_tie_lives() or threading.current_thread() is not threading.main_thread():
        return []
    return ["setpriv", "--pdeathsig", stop_signal.name.removeprefix("SIG"), "--"]


@cache
def _can_tie_lives() -> bool:
    try:
        trial = subprocess.run(
            ["setpriv", "--pdeathsig", "TERM", "true"], check=False, capture_output=True, timeout=TRIAL_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return trial.returncode == 0
