"""Remembers that somebody wants us to stop, so that we stop in order and once."""

import signal

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """A request to stop. Whether one signal comes or many, stopping is done once."""

    def __init__(self) -> None:
        self.has_come = False
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP:  # nohup means it
                signal.signal(number, self._remember)

    def check(self) -> None:
        """Raise KeyboardInterrupt if the request has come."""
        if self.has_come:
            raise KeyboardInterrupt

    def _remember(self, _number: int, _frame: object) -> None:
        self.has_come = True
