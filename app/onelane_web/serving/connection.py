"""One client's connection: what it sends, what it gets, and what is waited for."""

import socket
import struct
import time
from contextlib import suppress
from enum import Enum
from typing import Any, Final

from onelane_web.serving.answer import Answer, refuse, respond
from onelane_web.serving.arrival import Arrival

RECEIVE_BYTES: Final = 65_536
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
NOTHING: Final = memoryview(b"")


class Stage(Enum):
    """What a connection waits for."""

    IDLE = "the first byte of a request"
    ARRIVING = "the rest of a request"
    ANSWERING = "a thread"
    SENDING = "its client, who reads the answer"
    LEAVING = "its client, who has got the last answer and closes"
    GONE = "nothing"


class Connection:
    """A socket and what has come in on it. A thread runs `answer` and `give`, the loop all else, never both at once.

    Methods without another answer return the stage that follows.
    """

    def __init__(self, wire: socket.socket, server: Any, arrival: Arrival, client: Any) -> None:
        """Take over an accepted socket."""
        self.wire = wire
        self.stage = Stage.GONE
        self.since = 0.0
        """When its stage began."""
        self.arrival = arrival
        self._server = server
        self._client = client
        self._output = NOTHING
        self._is_last = False
        wire.setblocking(False)
        with suppress(OSError):  # a Unix socket has no such option
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self) -> Stage:
        """Take what the client has sent."""
        try:
            data = self.wire.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return self.stage
        except OSError:
            return Stage.GONE
        if not data:
            return Stage.GONE
        if self.stage is Stage.LEAVING:
            return self.stage
        self.arrival.add(data)
        return self.look()

    def look(self) -> Stage:
        """Find out whether a request is whole."""
        if self.arrival.is_whole():
            return Stage.ANSWERING
        if self.arrival.awaits_continue():
            with suppress(OSError):
                self.wire.send(CONTINUE)
        return Stage.ARRIVING if self.arrival.has_begun else Stage.IDLE

    def answer(self, worker: Any, *, is_last: bool) -> Answer:
        """Let the application answer."""
        request, arrival = None, self.arrival
        try:
            request = arrival.request
            is_last = is_last or arrival.is_broken
            waited_s = time.monotonic() - self.since
            data, goes_on = respond(worker, request, self._client, self._server, waited_s=waited_s, is_last=is_last)
            return Answer(data, is_last=not (goes_on and arrival.is_read()))
        except BaseException as error:  # noqa: BLE001 - a thread has to live, whatever the application raises
            return refuse(worker, request, self._client, error)

    def give(self, answer: Answer) -> None:
        """Send of an answer what the client takes at once. Of the request only what follows it is still held."""
        self.arrival = self.arrival.next()
        self._output, self._is_last = memoryview(answer.data), answer.is_last
        with suppress(OSError):  # the loop will see it too
            self._send_some()

    def send(self) -> Stage:
        """Send what is left of the answer. Once it has gone, the client's next request may be here already."""
        try:
            self._send_some()
            if self._output:
                return Stage.SENDING
            if self._is_last:
                self.wire.shutdown(socket.SHUT_WR)
                return Stage.LEAVING
        except OSError:
            return Stage.GONE
        return self.look()

    def give_up(self) -> Stage:
        """End what has taken too long."""
        with suppress(OSError):
            if self.stage is Stage.ARRIVING:
                self.wire.send(TOO_SLOW)
                self.wire.shutdown(socket.SHUT_WR)
                return Stage.LEAVING
            if self.stage is Stage.SENDING:  # nobody will read the rest: do not keep it for them
                self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        return Stage.GONE

    def _send_some(self) -> None:
        with suppress(BlockingIOError):
            while self._output:
                self._output = self._output[self.wire.send(self._output) :] or NOTHING
