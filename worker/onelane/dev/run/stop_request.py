"""Remembers that somebody wants us to stop, so that we stop in order and once."""

import signal

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """A request to stop. Whether one signal comes or many, stopping is done once.

    It waits for `check`. One that `interrupts` does so at once, and once, as a question on the terminal must be; until
    `wait_for_check`.
    """

    def __init__(self, *, interrupts: bool = False) -> None:
        self.has_come = False
        self._interrupts = interrupts
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP:  # nohup means it
                signal.signal(number, self._remember)

    def wait_for_check(self) -> None:
        """Interrupt nothing any more: whoever works in steps asks between them."""
        self._interrupts = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if the request has come."""
        if self.has_come:
            raise KeyboardInterrupt

    def _remember(self, _number: int, _frame: object) -> None:
        self.has_come = True
        if self._interrupts:
            self._interrupts = False
            raise KeyboardInterrupt
