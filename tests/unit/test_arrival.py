"""A request is whole when its last byte is there, however its bytes arrive, and nothing is waited for in vain."""

from itertools import pairwise
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import LimitRequestHeaders
from hypothesis import given
from hypothesis import strategies as st

from onelane_web.serving.arrival import HEAD_MAX_BYTES, LINE_MAX_BYTES, Arrival, Chunks

CONFIG = Config()
BODY_MAX = 10_000
ADDRESS = ("127.0.0.1", 1)
HEAD = b"POST /webhooks/demo?a=b HTTP/1.1\r\nHost: here\r\n"


def arrival(received: bytes = b"") -> Arrival:
    return Arrival(CONFIG, ADDRESS, BODY_MAX, received)


def plain(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, cuts: list[int]) -> bytes:
    ends = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    parts = [body[start:end] for start, end in pairwise(ends) if end > start]
    framed = b"".join(b"%x;name=value\r\n%s\r\n" % (len(part), part) for part in parts)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\nX-Sum: 1\r\n\r\n"


BODIES = st.binary(max_size=200)
CUTS = st.lists(st.integers(0, 400), max_size=8)
SENT = st.one_of(
    BODIES.map(lambda body: (plain(body), body)), st.tuples(BODIES, CUTS).map(lambda both: (chunked(*both), both[0]))
)


@given(st.lists(SENT, min_size=1, max_size=3), CUTS)
def test_requests_are_whole_at_their_last_byte_wherever_the_bytes_are_cut(
    sent: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    wire = b"".join(request for request, _ in sent)
    ends = [0, *sorted(cut % len(wire) for cut in cuts), len(wire)]
    found, one = [], arrival()
    for start, end in pairwise(ends):
        one.add(wire[start:end])
        while one.is_whole():
            found.append(one.request.body.read())
            assert one.is_read()
            one = one.next()
    assert found == [body for _, body in sent]
    assert not one.has_begun


@given(SENT, st.data())
def test_a_request_is_not_whole_before_its_last_byte(sent: tuple[bytes, bytes], data: Any) -> None:
    request, _ = sent
    one = arrival(request[: data.draw(st.integers(0, len(request) - 1))])
    assert not one.is_whole()


def test_a_body_that_is_too_large_is_not_waited_for() -> None:
    one = arrival(HEAD + b"Content-Length: %d\r\n\r\n" % (BODY_MAX + 1))
    assert one.is_whole()
    assert one.is_broken


@pytest.mark.parametrize(
    "chunks",
    [
        b"%x\r\n%s" % (BODY_MAX + 1, b"x"),
        b"1\r\nx\r\n" * BODY_MAX,
        b"no size\r\n",
        b"-5\r\n",
        b"1_0\r\n",
        b"1;" + b"x" * LINE_MAX_BYTES + b"\r\n",
        b"1;" + b"x" * LINE_MAX_BYTES,
        b"0\r\n" + b"x" * LINE_MAX_BYTES,
    ],
    ids=["too large", "too many", "no size", "negative", "underscore", "long line", "endless line", "endless trailer"],
)
def test_chunks_that_lead_nowhere_are_not_waited_for(chunks: bytes) -> None:
    one = arrival(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert one.is_whole()
    assert one.is_broken


def test_a_chunk_that_does_not_end_where_it_says_ends_the_connection() -> None:
    one = arrival(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxxxx\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert one.is_whole()
    assert one.is_broken or not one.is_read()


def test_a_head_without_an_end_is_refused() -> None:
    one = arrival(HEAD + b"X: " + b"x" * HEAD_MAX_BYTES)
    assert one.is_whole()
    assert one.is_broken
    with pytest.raises(LimitRequestHeaders):
        _ = one.request


def test_who_awaits_to_be_asked_for_the_body_is_asked_once() -> None:
    one = arrival(HEAD + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert not one.is_whole()
    assert [one.awaits_continue(), one.awaits_continue()] == [True, False]


def test_each_chunk_is_looked_at_once() -> None:
    chunks, wire = Chunks(), bytearray()
    for _ in range(3):
        wire += b"3\r\nabc\r\n"
        assert chunks.end(wire) is None
    wire += b"0\r\n\r\nGET"
    assert chunks.end(wire) == len(wire) - len("GET")
    assert chunks.size == 9
