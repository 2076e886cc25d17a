"""One helper process (`renewer.py`), seen from its parent: started, sent to, listened to, ended.

It answers whatever it is sent. One that is frozen (SIGSTOP, a control group) or hangs is seen by what it leaves
unanswered, and a frozen parent, which sends nothing, misses no answer.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from typing import Any, Final

from onelane import forks
from onelane.model import JsonObject
from onelane.wire import Wire

COMMAND: Final = (sys.executable, "-P", "-m", "onelane.lanes.renewer")
STARTS_S: Final = 10.0
"""What a helper may need before it answers for the first time."""
RESTART_PAUSE_S: Final = 1.0
"""The pause between helpers of which none gets ready."""
ENDS_S: Final = 1.0


class Helper:
    """A helper process and this end of its wire."""

    def __init__(self, settings: JsonObject, stall_limit_s: float, receive: Callable[[Any], object]) -> None:
        """Start it; `receive` gets each of its answers, in a thread of its own.

        Raise OSError or RuntimeError if the system gives no process, descriptor or thread; nothing is left then.
        """
        self.answers = threading.Event()
        """Set once it has answered for the first time."""
        self.has_begun = threading.Event()
        """Set then, or once it will never answer."""
        self.unanswered = 0
        """How much was sent since its last answer. Two threads write it: for a beat it may be as before the answer."""
        self.is_killed = False
        """Whether it was ended for good."""
        self._receive = receive
        self._started_at = time.monotonic()
        self._listener = threading.Thread(target=self._listen, name="renewals", daemon=True)
        with forks.making_a_connection():
            ours, theirs = Pipe()
            self._wire = Wire(ours, stall_limit_s)
            with theirs:  # whose end also ends the listener, should there be no process
                self._listener.start()
                command = [*COMMAND, str(theirs.fileno()), str(os.getpid())]
                self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])  # noqa: S603 - ours, and two numbers
        self.send(settings)

    def send(self, message: JsonObject) -> None:
        """Send what it is to answer; one that takes no message, or not all of it, is killed."""
        self.unanswered += 1
        try:
            self._wire.send(message)
        except OSError:
            self.process.kill()

    @property
    def can_answer(self) -> bool:
        """Whether it has answered, and has not ended since."""
        return self.answers.is_set() and not self.is_killed and self.process.poll() is None

    @property
    def has_ended(self) -> bool:
        """Whether it is gone; one that never answered, not before the next one may start."""
        is_time = self.answers.is_set() or time.monotonic() - self._started_at > RESTART_PAUSE_S
        return is_time and self.process.poll() is not None

    @property
    def is_late(self) -> bool:
        """Whether it should have answered for the first time by now."""
        return not self.answers.is_set() and time.monotonic() - self._started_at > STARTS_S

    def end(self) -> None:
        """Shut the wire down: it ends by itself."""
        self._wire.shut_down()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDS_S)
        self.kill()

    def kill(self) -> None:
        """End it now. What the system cannot end is not waited for: it will not run again."""
        self.is_killed = True
        self._wire.shut_down()
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDS_S)
        self._listener.join(ENDS_S)  # it reads no more: the descriptor's number may be another's from here on
        self._wire.close()

    def _listen(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                answer = self._wire.receive(None)
                self.unanswered = 0
                self.answers.set()
                self.has_begun.set()
                self._receive(answer)
        self.has_begun.set()
