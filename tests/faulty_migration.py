"""Runs of `migrate` that kill themselves before or after their nth statement.

It reads lines `side n` (`never 0` for a run without a fault) and answers each with how the run ended and how many
statements it sent. Each run is a process of its own, forked so that 200 of them take seconds. Nothing of this is in the
product: the calls are wrapped from outside.
"""

import os
import signal
import sys
from collections.abc import Generator
from typing import Any

from psycopg import BaseConnection, Cursor

from onelane.postgres.migrations import migrate


class Fault:
    """Kills this process around its nth statement."""

    def __init__(self, side: str, number: int) -> None:
        self.sent = 0
        self._side = side
        self._number = number

    def before(self) -> None:
        self.sent += 1
        self._strike("before")

    def after(self) -> None:
        self._strike("after")

    def _strike(self, side: str) -> None:
        if (side, self.sent) == (self._side, self._number):
            os.kill(os.getpid(), signal.SIGKILL)


def wrap(fault: Fault) -> None:
    """Put `fault` around what a caller executes, and around what psycopg adds to it: BEGIN and COMMIT."""
    execute, command = Cursor.execute, BaseConnection._exec_command

    def executed(self: Any, *args: Any, **kwargs: Any) -> Any:
        fault.before()
        answer = execute(self, *args, **kwargs)
        fault.after()
        return answer

    def commanded(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        fault.before()
        answer = yield from command(self, *args, **kwargs)
        fault.after()
        return answer

    setattr(Cursor, execute.__name__, executed)
    setattr(BaseConnection, command.__name__, commanded)


def run(url: str, fault: Fault) -> None:
    """Migrate in a child, and print how it ended and what it sent."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        wrap(fault)
        migrate(url)
        os.write(writing, str(fault.sent).encode())
        os._exit(0)
    os.close(writing)
    sent = os.read(reading, 10).decode() or "0"
    os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.stdout.write(f"{code} {sent}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for line in sys.stdin:
        side, number = line.split()
        run(sys.argv[1], Fault(side, int(number)))
