"""Keeps one worker process alive: starts the next within a second of a death, passes signals on, ends with it."""

import signal
import subprocess
import sys
import time

from onelane.telemetry.log import event

RESTART_PAUSE_S = 0.2
RESTART_PAUSE_MAX_S = 30.0
HEALTHY_AFTER_S = 5.0
SLICE_S = 0.1
EXIT_CONFIG = 78


class Supervisor:
    """Runs `command` again whenever it exits other than on purpose."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._is_stopping = False
        self._child: subprocess.Popen[bytes] | None = None

    def stop(self, signum: int, _frame: object) -> None:
        """Pass the first and every further signal on to the worker."""
        self._is_stopping = True
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signum)

    def run(self) -> int:
        """Supervise until the worker ends on purpose (0), cannot start (78), or a signal came."""
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        try:
            return self._supervise()
        finally:
            # A further signal, as the interpreter ends, must not turn a good end into a bad one.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _supervise(self) -> int:
        pause_s = RESTART_PAUSE_S
        while not self._is_stopping:
            started = time.monotonic()
            code = self._run_once()
            if code in {0, EXIT_CONFIG}:
                return code
            if self._is_asked_to_stop():
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
        self._child = subprocess.Popen(self._command)
        if self._is_stopping:
            self._child.terminate()
        return self._child.wait()


def supervise(*arguments: str) -> int:
    """Run `onelane worker` itself as the supervised process."""
    return Supervisor([sys.executable, "-P", "-m", "onelane", "worker", "--unsupervised", *arguments]).run()
