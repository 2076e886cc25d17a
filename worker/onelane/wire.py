"""What talks between our processes: JSON values over a socket pair, framed by `multiprocessing.connection`.

Nothing is pickled. Every wait has a bound, also in the middle of a message whose sender was stopped.
"""

import json
import socket
import struct
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from os import dup
from typing import Any, Self

from onelane import forks

MESSAGE_MAX_BYTES = 4_000_000


class Wire:
    """One end. Raises EOFError when the other end is closed, OSError when it stalls or sends too much."""

    def __init__(
        self,
        connection: Connection,
        stall_limit_s: float,
        *,
        sends_max_bytes: int = MESSAGE_MAX_BYTES,
        receives_max_bytes: int = MESSAGE_MAX_BYTES,
    ) -> None:
        """Bound how long a message that has begun may stall, whichever way it goes, and how long it may be."""
        self._connection = connection
        self._sends_max_bytes = sends_max_bytes
        self._receives_max_bytes = receives_max_bytes
        forks.keep_from_children(connection)
        self._closing = threading.Lock()
        """Guards the descriptor's number: once closed, it may be another's, which shutting down must not strike."""
        limit = struct.pack("ll", int(stall_limit_s), int(stall_limit_s % 1 * 1_000_000))
        with socket.socket(fileno=dup(connection.fileno())) as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)

    @classmethod
    def inherited(cls, fileno: int, stall_limit_s: float, **bounds: int) -> Self:
        """Take the end that a parent passed on to this process."""
        return cls(Connection(fileno), stall_limit_s, **bounds)

    def send(self, value: Any) -> None:
        """Send one value, as JSON has it; raise ValueError if it is too long."""
        message = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
        if len(message) > self._sends_max_bytes:
            raise ValueError(f"a message of {len(message)} bytes: at most {self._sends_max_bytes} go over the wire")
        self._connection.send_bytes(message)

    def receive(self, within_s: float | None) -> Any:
        """Return the next value; None when none has begun to come `within_s`. With None, wait for the other's end."""
        if not self._connection.poll(within_s):
            return None
        message = self._connection.recv_bytes(self._receives_max_bytes)
        try:
            return json.loads(message)
        except (ValueError, RecursionError) as error:
            raise OSError("what came over the wire is no JSON") from error

    def shut_down(self) -> None:
        """End it for both sides, whoever waits on it; each still has to close its end."""
        with self._closing, suppress(OSError), socket.socket(fileno=dup(self._connection.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end."""
        with self._closing:
            self._connection.close()
