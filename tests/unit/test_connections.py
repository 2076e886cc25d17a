"""Connections to a provider that are kept: what is sent on them, what is read, and when one is not used again."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import trustme

from onelane.channels.sending import Request
from onelane.channels.verdicts import Response
from onelane.outbox import connection
from onelane.outbox.connections import Connections
from onelane.outbox.sending import ANSWER_MAX_BYTES, trusted
from tests import loops

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BIG = b"x" * 5_000_000
TRUST = trusted()
"""Made once: each takes a tenth of a second."""


@dataclass
class Server:
    """Answers each request with the next of its answers; None: closes the connection before it."""

    answers: list[bytes | None] = field(default_factory=list)
    after: dict[int, Callable[[asyncio.StreamWriter], Awaitable[None]]] = field(default_factory=dict)
    """What else it does after the answer with this number."""
    asked: list[bytes] = field(default_factory=list)
    """The requests, head and body."""
    connections: int = 0
    port: int = 0
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    def post(self, body: bytes = b"hello", path: str = "/send", host: str = "127.0.0.1") -> Request:
        return Request("send", "POST", f"http://{host}:{self.port}{path}", {"X-Key": "k1"}, body)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving[asyncio.create_task(self.serve(reader, writer))] = writer

    async def close(self) -> None:
        for writer in self.serving.values():
            writer.transport.abort()
        if self.serving:
            await asyncio.wait(self.serving)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                number = len(self.asked)
                self.asked.append(head + await reader.readexactly(length))
                answer = self.answers[number] if number < len(self.answers) else OK
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if number in self.after:
                    await self.after[number](writer)
        writer.close()


Work = Callable[[Server, Connections], Coroutine[Any, Any, Any]]


def served(server: Server, work: Work, most: int = 4, tls: ssl.SSLContext | None = None) -> Any:
    async def both() -> Any:
        listening = await asyncio.start_server(server.connected, "127.0.0.1", 0, ssl=tls)
        server.port = listening.sockets[0].getsockname()[1]
        kept = Connections(most, TRUST)
        try:
            return await work(server, kept)
        finally:
            await kept.close()
            listening.close()
            await server.close()

    return loops.run(both())


async def asked(kept: Connections, request: Request) -> Response:
    return await kept.answer(request, asyncio.get_running_loop().time() + 60)


async def twice(server: Server, kept: Connections) -> list[Response]:
    """Ask for the second time when the loop knows all that the server did after the first."""
    first = await asked(kept, server.post())
    for one in kept._open:
        while server.after and not (one._is_over or one._received):
            await one._change_within(60, httpx2.ReadTimeout)
    return [first, await asked(kept, server.post())]


async def begun(server: Server, kept: Connections) -> asyncio.Task[Response]:
    """Ask, and return when the server has answered what it answers."""
    half_way = asyncio.Event()

    async def pass_on(_writer: asyncio.StreamWriter) -> None:
        half_way.set()

    server.after[0] = pass_on
    asking = asyncio.create_task(asked(kept, server.post()))
    await half_way.wait()
    return asking


async def once(server: Server, kept: Connections) -> Response:
    return await asked(kept, server.post())


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def say_good_bye(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")


def test_a_request_is_written_as_it_is_and_its_connection_kept() -> None:
    server = Server()
    answers = served(server, twice)
    assert [(one.status, one.body) for one in answers] == [(200, b"ok")] * 2
    assert server.connections == 1
    head, _, body = server.asked[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert (first, body) == ("POST /send HTTP/1.1", b"hello")
    assert dict(line.split(": ") for line in lines) == {
        "Host": f"127.0.0.1:{server.port}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "User-Agent": "onelane",
        "X-Key": "k1",
        "Content-Length": "5",
    }


@pytest.mark.parametrize("does", [close, say_good_bye])
def test_a_connection_that_its_server_has_left_is_not_used_again(does: Any) -> None:
    server = Server(after={0: does})
    assert [one.status for one in served(server, twice)] == [200, 200]
    assert server.connections == 2


def test_what_comes_behind_an_answer_answers_no_other_request() -> None:
    server = Server([OK + b"HTTP/1.1 500 Odd\r\nContent-Length: 0\r\n\r\n"])
    assert [one.status for one in served(server, twice)] == [200, 200]
    assert server.connections == 2


def test_a_connection_that_nobody_used_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEPT_S", 0)
    server = Server()
    served(server, twice)
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", b"abcd"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_every_way_to_say_where_an_answer_ends_is_read(answer: bytes, body: bytes) -> None:
    assert served(Server([answer]), once).body == body


def test_an_answer_that_ends_with_its_connection_is_read() -> None:
    server = Server([b"HTTP/1.1 200 OK\r\n\r\nall of it"], after={0: close})
    assert served(server, once).body == b"all of it"


def test_an_answer_without_an_end_is_cut_off() -> None:
    server = Server([b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (ANSWER_MAX_BYTES + 10)])
    answers = served(server, twice)
    assert len(answers[0].body) == ANSWER_MAX_BYTES
    assert server.connections == 2


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize(
    ("answer", "does", "error"),
    [
        (None, None, httpx2.RemoteProtocolError),
        (b"", reset, httpx2.ReadError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", close, httpx2.RemoteProtocolError),
        (b"\x00\xff no HTTP\r\n\r\n", close, httpx2.RemoteProtocolError),
    ],
)
def test_an_answer_that_is_none_is_an_error_of_httpx2(answer: bytes | None, does: Any, error: type[Exception]) -> None:
    server = Server([answer], after={0: does} if does else {})

    async def fail_and_go_on(server: Server, kept: Connections) -> Response:
        with pytest.raises(error):
            await asked(kept, server.post())
        return await asked(kept, server.post())

    assert served(server, fail_and_go_on).status == 200
    assert server.connections == 2


def test_a_silent_server_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_S", 0.01)
    with pytest.raises(httpx2.ReadTimeout):
        served(Server([b""]), once)


def test_who_was_stopped_past_the_deadline_does_not_write() -> None:
    server = Server()

    async def late(server: Server, kept: Connections) -> None:
        await asked(kept, server.post())
        with pytest.raises(TimeoutError):
            await kept.answer(server.post(), asyncio.get_running_loop().time())

    served(server, late)
    assert len(server.asked) == 1


def test_a_request_that_is_cancelled_takes_its_connection_along() -> None:
    server = Server([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])

    async def cancelled(server: Server, kept: Connections) -> Response:
        asking = await begun(server, kept)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        return await asked(kept, server.post())

    assert served(server, cancelled).body == b"ok"
    assert server.connections == 2


def test_a_long_body_leaves_as_fast_as_it_is_read() -> None:
    server = Server()

    async def sent(server: Server, kept: Connections) -> Response:
        return await asked(kept, server.post(BIG))

    assert served(server, sent).status == 200
    assert server.asked[0].endswith(b"\r\n\r\n" + BIG)


def test_a_server_that_answers_before_it_has_read_is_listened_to() -> None:
    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    server = Server()
    server.serve = refuse  # type: ignore[method-assign, assignment]

    async def sent(server: Server, kept: Connections) -> Response:
        return await asked(kept, server.post(BIG))

    assert served(server, sent).status == 413


def test_one_connection_leads_to_one_server_after_the_other() -> None:
    server = Server()

    async def both(server: Server, kept: Connections) -> int:
        for host in ("127.0.0.1", "localhost", "127.0.0.1"):
            await asked(kept, server.post(host=host))
        return len(kept._open)

    assert served(server, both, most=1) == 1
    assert server.connections == 3


def test_nobody_listens() -> None:
    async def ask(server: Server, kept: Connections) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server.port = free.getsockname()[1]
            with pytest.raises(httpx2.ConnectError):
                await asked(kept, server.post())

    served(Server(), ask)


@pytest.mark.parametrize("url", ["ftp://provider.invalid/", "http:///send", "send"])
def test_what_is_no_address_is_refused(url: str) -> None:
    async def ask(_server: Server, kept: Connections) -> None:
        with pytest.raises(httpx2.UnsupportedProtocol):
            await asked(kept, Request("send", "POST", url))

    served(Server(), ask)


def test_a_header_that_is_none_is_never_sent() -> None:
    async def ask(server: Server, kept: Connections) -> None:
        with pytest.raises(httpx2.LocalProtocolError):
            await asked(kept, Request("send", "POST", f"http://127.0.0.1:{server.port}/", {"X-Key": "a\r\nb"}))

    server = Server()
    served(server, ask)
    assert server.asked == []


def test_a_name_and_a_password_in_an_address_become_a_header() -> None:
    server = Server()

    async def ask(server: Server, kept: Connections) -> Response:
        return await asked(kept, server.post(host="us%20er:word@127.0.0.1"))

    served(server, ask)
    assert b"\r\nAuthorization: Basic dXMgZXI6d29yZA==\r\n" in server.asked[0]


def test_only_a_server_that_is_trusted_is_spoken_to() -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    known = ssl.create_default_context()
    authority.configure_trust(known)

    async def ask(server: Server, kept: Connections) -> Response:
        request = Request("send", "POST", f"https://localhost:{server.port}/send", {}, b"hello")
        with pytest.raises(httpx2.ConnectError):
            await asked(kept, request)
        assert server.asked == []
        trusting = Connections(1, known)
        try:
            return [await asked(trusting, request) for _ in range(2)][-1]
        finally:
            await trusting.close()

    server = Server()
    assert served(server, ask, tls=context).body == b"ok"


def test_the_time_outs_are_those_of_the_reference() -> None:
    assert (connection.CONNECT_S, connection.READ_S, connection.WRITE_S) == (3, 15, 10)
