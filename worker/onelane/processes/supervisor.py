"""Keeps one worker process alive: starts the next within a second of a death, passes signals on, ends with it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from onelane.errors import EXIT_CONFIG
from onelane.telemetry.log import event

RESTART_PAUSE_S = 0.2
RESTART_PAUSE_MAX_S = 30.0
HEALTHY_AFTER_S = 5.0
SLICE_S = 0.1
ENDS_S = 4.5
"""A worker that can ends within its grace and 4 s; with the default grace all are gone within 25 s."""


class Supervisor:
    """Runs `command` again whenever it exits other than on purpose."""

    def __init__(self, command: list[str], ends_within_s: float) -> None:
        self._command = command
        self._ends_within_s = ends_within_s
        self._is_stopping = False
        self._child: subprocess.Popen[bytes] | None = None

    def stop(self, signum: int, _frame: object) -> None:
        """Pass the first and every further signal on to the worker; with the first its time begins to run."""
        if not self._is_stopping:
            self._is_stopping = True
            signal.setitimer(signal.ITIMER_REAL, self._ends_within_s)
        self._signal(signum)

    def kill(self, _signum: int, _frame: object) -> None:
        """End a worker that has not ended in its time: one that is frozen cannot."""
        self._signal(signal.SIGKILL)

    def run(self) -> int:
        """Supervise until the worker ends on purpose (0), cannot start (78), or a signal came."""
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        signal.signal(signal.SIGALRM, self.kill)
        try:
            return self._supervise()
        finally:
            # A further signal, as the interpreter ends, must not turn a good end into a bad one.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _supervise(self) -> int:
        pause_s = RESTART_PAUSE_S
        while not self._is_stopping:
            started = time.monotonic()
            code = self._run_once()
            if code in {0, EXIT_CONFIG}:
                return code
            if self._is_asked_to_stop():
                if code == -signal.SIGKILL:
                    event("worker_killed", after_s=self._ends_within_s)
                break
            pause_s = RESTART_PAUSE_S if time.monotonic() - started > HEALTHY_AFTER_S else pause_s * 2
            event("worker_died", exit_code=code, restart_in_s=min(pause_s, RESTART_PAUSE_MAX_S))
            self._pause(min(pause_s, RESTART_PAUSE_MAX_S))
        return 0

    def _is_asked_to_stop(self) -> bool:
        return self._is_stopping

    def _pause(self, seconds: float) -> None:
        """Sleep in slices: a signal handler must not find a lock of ours taken, so there is none to wait on."""
        ends = time.monotonic() + seconds
        while not self._is_stopping and time.monotonic() < ends:
            time.sleep(SLICE_S)

    def _run_once(self) -> int:
        self._child = subprocess.Popen(self._command)  # noqa: S603 - the worker, as it was called itself
        if self._is_stopping:
            self._signal(signal.SIGTERM)
        if hasattr(os, "waitid"):
            self._reap_until(self._child.pid)
        return self._child.wait()

    def _signal(self, signum: int) -> None:
        """Signal the worker. Nobody but `_run_once` may learn that it has ended: until then its id is nobody else's."""
        if self._child is not None and self._child.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._child.pid, signum)

    @staticmethod
    def _reap_until(pid: int) -> None:
        """Wait until a child has ended; meanwhile take leave of others, whose parents ended before them.

        A container's first process inherits them: a worker's helper, and whatever a bot has started.
        """
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)) and ended.si_pid != pid:
            os.waitpid(ended.si_pid, 0)


def supervise(*arguments: str, grace_s: float) -> int:
    """Run `onelane worker` itself as the supervised process; once asked to, it ends within the grace and ENDS_S."""
    command = [sys.executable, "-P", "-m", "onelane", "worker", "--unsupervised", *arguments]
    return Supervisor(command, grace_s + ENDS_S).run()
