"""Clients that hold a web server up: they connect, behave badly, and count which of them the server has cut."""

import select
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

DRIP_S: Final = 0.5
CONNECT_S: Final = 2.0
HOPELESS_S: Final = 0.01
"""How long to wait for a server that has once not answered in time."""
RECEIVE_BUFFER: Final = 4_096
POST: Final = b"POST /webhooks/demo HTTP/1.1\r\nHost: slow\r\n"
BIG: Final = "/big"
HANGING: Final = "/hanging"
PLAIN: Final = "/plain"
"""Three pages of the server under test: its answer is of several megabytes; it has none; a thread answers at once."""


class SlowClients:
    """So many connections of one kind, for the block's time; a thread sends a byte on each now and then."""

    def __init__(self, port: int, kind: str, how_many: int) -> None:
        self._port = port
        self._begin, self._drip = KINDS[kind]
        self._how_many = how_many
        self._wires: list[socket.socket] = []
        self._ended = threading.Event()
        self._dripping = threading.Thread(target=self._run, name="slow clients", daemon=True)

    @property
    def cut(self) -> int:
        """How many connections the server has ended."""
        poll = select.poll()
        for wire in self._wires:
            poll.register(wire, select.POLLRDHUP)
        return len(poll.poll(0))

    def __enter__(self) -> Self:
        patience_s = CONNECT_S
        for _ in range(self._how_many):
            wire = socket.socket()
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            wire.settimeout(patience_s)
            self._wires.append(wire)
            # A server that takes no more connections, or answers none, is what is looked for.
            try:
                wire.connect(("127.0.0.1", self._port))
                self._begin(wire)
            except OSError:
                patience_s = HOPELESS_S
            wire.setblocking(False)
        self._dripping.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._dripping.join()
        for wire in self._wires:
            wire.close()

    def _run(self) -> None:
        while not self._ended.wait(DRIP_S):
            for wire in self._wires:
                with suppress(OSError):
                    self._drip(wire)


def _begin_headers(wire: socket.socket) -> None:
    wire.sendall(POST + b"X-Slow: ")


def _begin_body(wire: socket.socket) -> None:
    wire.sendall(POST + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n" + b"{" * 500)


def _begin_to_read(wire: socket.socket) -> None:
    wire.sendall(f"GET {BIG} HTTP/1.1\r\nHost: slow\r\n\r\n".encode())


def _ask_once(wire: socket.socket) -> None:
    wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: slow\r\n\r\n")
    wire.recv(RECEIVE_BUFFER)


def _drip_one(wire: socket.socket) -> None:
    wire.send(b"x")


def _read_one(wire: socket.socket) -> None:
    wire.recv(1)


def _nothing(_wire: socket.socket) -> None:
    pass


KINDS: Final[Mapping[str, tuple[Callable[[socket.socket], None], Callable[[socket.socket], None]]]] = {
    "slow headers": (_begin_headers, _drip_one),
    "slow bodies": (_begin_body, _drip_one),
    "slow readers": (_begin_to_read, _read_one),
    "silent": (_nothing, _nothing),
    "idle": (_ask_once, _nothing),
}
"""What each does once it is connected, and what it does again and again."""
