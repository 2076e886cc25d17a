"""A client that posts webhooks which were signed beforehand, and does no more: it shares two cores with the servers."""

import socket
from collections.abc import Sequence
from contextlib import suppress

from bench.checking import Sent
from bench.traffic import PATH, signed
from onelane.channels.provider import Signed
from onelane.dev.stack import HOST

ANSWER_S = 30.0
READ_BYTES = 65_536
END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"content-length:"
GOOD = b"2"


def raw_requests(messages: Sequence[tuple[str, str, str]]) -> dict[str, bytes]:
    """Make whole requests, by the messages' external ids."""
    sent = [Sent(*message) for message in messages]
    return {one.external_id: _raw(webhook) for one, webhook in zip(sent, signed(sent), strict=True)}


class Client:
    """One connection, which stays open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def post(self, request: bytes) -> None:
        """Post, and wait for the whole answer; raise OSError when that does not accept it, or does not come."""
        try:
            answer = self._ask(request)
        except OSError:
            self._close()
            raise
        status = answer.split(b" ", 2)[1]
        if not status.startswith(GOOD):
            raise OSError(f"the answer was {status.decode()}")

    def _ask(self, request: bytes) -> bytes:
        if self._socket is None:
            self._socket = socket.create_connection((HOST, self._port), timeout=ANSWER_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        answer = b""
        while not _is_whole(answer):
            more = self._socket.recv(READ_BYTES)
            if not more:
                raise OSError("the web closed the connection")
            answer += more
        return answer

    def _close(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None


def _raw(webhook: Signed) -> bytes:
    headers = {"Host": HOST, **webhook.headers, "Content-Length": str(len(webhook.body))}
    lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + webhook.body


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(END_OF_HEAD)
    length = next((line[len(LENGTH) :] for line in head.lower().split(b"\r\n") if line.startswith(LENGTH)), b"0")
    return bool(end) and len(body) >= int(length)
