"""Notices that somebody wants `onelane run` to stop: by a signal to us, or to the `make` that started us."""

import os
import signal
from pathlib import Path

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAKES = ("make", "gmake")


class StopRequest:
    """Remembers a request to stop. Whether one signal comes or many, stopping is done once."""

    def __init__(self) -> None:
        self._was_signalled = False
        self._parent = os.getppid()
        self._is_from_make = _status(self._parent).get("Name") in MAKES
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP:  # nohup means it
                signal.signal(number, self._remember)

    @property
    def has_come(self) -> bool:
        """Whether we should stop."""
        return self._was_signalled or (self._is_from_make and self._make_was_stopped())

    def _remember(self, _number: int, _frame: object) -> None:
        self._was_signalled = True

    def _make_was_stopped(self) -> bool:
        """Notice a signal that went to make alone, and not to the whole terminal.

        Make passes SIGTERM on, but SIGINT not: inside its handler, where the signal is blocked, it waits for us to
        end, for ever. Killed, it says nothing at all.
        """
        if os.getppid() != self._parent:
            return True
        blocked = int(_status(self._parent).get("SigBlk", "0"), 16)
        return any(blocked & 1 << number - 1 for number in STOP_SIGNALS)


def _status(process: int) -> dict[str, str]:
    """Read what the system tells of a process; nothing where it has no /proc."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
