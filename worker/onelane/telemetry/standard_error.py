"""Standard error, with a deadline: whoever reads it may have stopped, and must not stop whoever writes.

A line that is not taken in time is left out, and so is each that follows, until there is room again.
"""

import os
import select
import time
from collections.abc import Callable
from typing import Final, TextIO

WAIT_S: Final = 1.0
PART_BYTES: Final = select.PIPE_BUF
"""What a pipe that has room takes without blocking."""


class StandardError:
    """Writes lines to a descriptor. Its caller lets one thread write at a time."""

    def __init__(self, stream: TextIO, on_room: Callable[[int], object]) -> None:
        """Call `on_room` with how many lines were left out, once there is room again."""
        self._descriptor = stream.fileno()
        self._on_room = on_room
        self._left_out = 0
        self._is_torn = False
        """Whether only the beginning of the last line was taken."""
        self._room = select.poll()
        self._room.register(self._descriptor, select.POLLOUT)

    def write(self, text: str) -> None:
        """Write a line, or leave it out; raise OSError if nobody will ever read it."""
        ends = time.monotonic() + (0 if self._left_out else WAIT_S)
        data = ("\n" * self._is_torn + text).encode(errors="backslashreplace")
        for start in range(0, len(data), PART_BYTES):
            if not self._room.poll(1000 * max(0.0, ends - time.monotonic())):
                self._left_out += 1
                self._is_torn = self._is_torn or start > 0
                return
            self._write_all(data[start : start + PART_BYTES])
        self._is_torn = False
        if left_out := self._left_out:
            self._left_out = 0
            self._on_room(left_out)

    def flush(self) -> None:
        """Do nothing: a line is written at once."""

    def _write_all(self, part: bytes) -> None:
        while part:
            part = part[os.write(self._descriptor, part) :]
