"""No request hides in another: where two servers could see different ends, the connection ends with the first.

Each test sends bytes to the loop that serves the web, over a socket, and hides a request for /hidden in them. A proxy
in front may have taken it for the body of somebody's webhook: to answer it would mix up two senders' answers.
"""

import re
import socket
from typing import Final

import pytest

from tests.unit.test_serving import PATIENCE_S, Serve, Web, serve

__all__ = ["serve"]

POST: Final = b"POST /seen HTTP/1.1\r\nHost: web\r\n"
HIDDEN: Final = b"GET /hidden HTTP/1.1\r\nHost: web\r\n\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
SHORT: Final = b"Content-Length: 5\r\n"
LENGTH: Final = b"Content-Length: %d\r\n" % len(b"0\r\n\r\n" + HIDDEN)
LAST: Final = b"0\r\n\r\n"
STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")

AMBIGUOUS: Final = {
    "both lengths, shorter in front": POST + SHORT + CHUNKED + b"\r\n" + LAST + HIDDEN,
    "both lengths, longer behind": POST + CHUNKED + LENGTH + b"\r\n" + LAST + HIDDEN,
    "two lengths": POST + SHORT + LENGTH + b"\r\n" + LAST + HIDDEN,
    "one length twice": POST + SHORT + SHORT + b"\r\n" + LAST + HIDDEN,
    "two lengths in one": POST + b"Content-Length: 5, 5\r\n\r\n" + LAST + HIDDEN,
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\n" + LAST + HIDDEN,
    "a length below zero": POST + b"Content-Length: -5\r\n\r\n" + LAST + HIDDEN,
    "a length in another base": POST + b"Content-Length: 0x5\r\n\r\n" + LAST + HIDDEN,
    "a length with an underscore": POST + b"Content-Length: 0_5\r\n\r\n" + LAST + HIDDEN,
    "a length of other digits": POST + b"Content-Length: \xb2\r\n\r\n" + LAST + HIDDEN,
    "a length on the next line": POST + b"Content-Length:\r\n 5\r\n\r\n" + LAST + HIDDEN,
    "a length that is folded": POST + b"Content-Length: 5\r\n 1\r\n\r\n" + LAST + HIDDEN,
    "a blank before the colon": POST + b"Transfer-Encoding : chunked\r\n" + SHORT + b"\r\n" + LAST + HIDDEN,
    "a blank before the name": POST + b" Transfer-Encoding: chunked\r\n" + SHORT + b"\r\n" + LAST + HIDDEN,
    "chunked on the next line": POST + b"Transfer-Encoding:\r\n chunked\r\n" + SHORT + b"\r\n" + LAST + HIDDEN,
    "chunked twice": POST + CHUNKED + CHUNKED + b"\r\n" + LAST + HIDDEN,
    "chunked twice in one": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + LAST + HIDDEN,
    "chunked, then something": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + LAST + HIDDEN,
    "not quite chunked": POST + b"Transfer-Encoding: xchunked\r\n" + SHORT + b"\r\n" + LAST + HIDDEN,
    "chunked behind a control": POST + b"Transfer-Encoding: \x0bchunked\r\n" + SHORT + b"\r\n" + LAST + HIDDEN,
    "quoted": POST + b'Transfer-Encoding: "chunked"\r\n' + SHORT + b"\r\n" + LAST + HIDDEN,
    "another coding alone": POST + b"Transfer-Encoding: gzip\r\n" + SHORT + b"\r\n" + LAST + HIDDEN,
    "chunked in HTTP/1.0": POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n" + LAST + HIDDEN,
    "a line that ends with LF": POST + b"X: a\n" + CHUNKED + b"\r\n" + LAST + HIDDEN,
    "a lone CR": POST + b"X: a\r" + CHUNKED + b"\r\n" + LAST + HIDDEN,
    "a NUL": POST + b"X: a\0\r\n" + SHORT + b"\r\n" + LAST + HIDDEN,
    "a header without a name": POST + b": a\r\n" + SHORT + b"\r\n" + LAST + HIDDEN,
    "a chunk with a sign": POST + CHUNKED + b"\r\n+5\r\nabcde\r\n" + LAST + HIDDEN,
    "a chunk in another base": POST + CHUNKED + b"\r\n0x5\r\nabcde\r\n" + LAST + HIDDEN,
    "a chunk below zero": POST + CHUNKED + b"\r\n-1\r\n" + LAST + HIDDEN,
    "a chunk with an underscore": POST + CHUNKED + b"\r\n0_5\r\nabcde\r\n" + LAST + HIDDEN,
    "a blank before a chunk's size": POST + CHUNKED + b"\r\n 5\r\nabcde\r\n" + LAST + HIDDEN,
    "a chunk whose line ends with LF": POST + CHUNKED + b"\r\n5\nabcde\r\n" + LAST + HIDDEN,
    "an LF in a chunk's extension": POST + CHUNKED + b"\r\n2;\nxx\r\n2d\r\n0\r\n\r\n" + HIDDEN + LAST,
    "a chunk that is longer than it says": POST + CHUNKED + b"\r\n2\r\nabcde\r\n" + LAST + HIDDEN,
    "a chunk without its end": POST + CHUNKED + b"\r\n5\r\nabcde" + LAST + HIDDEN,
    "a trailer that is no header": POST + CHUNKED + b"\r\n0\r\nGET /hidden HTTP/1.1\r\n\r\n" + HIDDEN,
    "a length behind the last chunk": POST + CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n" + HIDDEN,
}
PLAIN: Final = {
    "a length": POST + LENGTH + b"\r\n" + LAST + HIDDEN,
    "chunks": POST + CHUNKED + b"\r\n%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n" + LAST,
    "an underscore for a hyphen": POST + b"Transfer_Encoding: chunked\r\n" + LENGTH + b"\r\n" + LAST + HIDDEN,
}
"""The hidden request is the body, or a part of it, for everybody."""


def answers(web: Web, sent: bytes) -> list[bytes]:
    """Send, end, and return the statuses of all answers until the server closes."""
    with socket.create_connection(("127.0.0.1", web.port), PATIENCE_S) as wire:
        wire.sendall(sent)
        wire.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: wire.recv(65_536), b""))
    return STATUS.findall(received)


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_where_two_servers_could_see_different_ends_nothing_behind_the_first_is_answered(
    serve: Serve, sent: bytes
) -> None:
    web = serve()
    assert len(answers(web, sent)) <= 1
    assert "/hidden" not in web.pages.asked


@pytest.mark.parametrize("sent", PLAIN.values(), ids=PLAIN)
def test_a_request_within_a_body_is_a_body(serve: Serve, sent: bytes) -> None:
    web = serve()
    assert answers(web, sent) == [b"200"]
    assert web.pages.asked == ["/seen"]


def test_a_request_behind_another_is_answered(serve: Serve) -> None:
    """The check can fail: what is not hidden is found."""
    web = serve()
    assert answers(web, POST + SHORT + b"\r\n" + LAST + HIDDEN) == [b"200", b"200"]
    assert web.pages.asked == ["/seen", "/hidden"]
