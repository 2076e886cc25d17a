"""What a client's connection holds of a request that was answered: nothing, whatever its client does then."""

import socket
from collections.abc import Iterator
from contextlib import closing
from weakref import ref

import pytest
from gunicorn.config import Config

from onelane_web.serving.answer import Answer
from onelane_web.serving.arrival import Arrival
from onelane_web.serving.connection import Connection, Stage

ADDRESS = ("127.0.0.1", 1)
BODY = b"x" * 20_000
NEXT = b"POST /webhooks/demo HTTP/1.1\r\nHost: here\r\n"
"""The head of a request, without its end."""
REQUEST = NEXT + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
MORE_THAN_FITS = b"y" * 2**24


@pytest.fixture
def asked() -> Iterator[Connection]:
    """Yield the connection of a client who has sent a whole request, and some of the next."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        connection = Connection(ours, ADDRESS, Arrival(Config(), ADDRESS, 2 * len(BODY)), ADDRESS)
        theirs.sendall(REQUEST + NEXT)
        assert connection.read() is Stage.ANSWERING
        assert len(connection.arrival) > len(BODY)
        yield connection


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (Answer(b"done", is_last=False), Stage.ARRIVING),
        (Answer(b"done", is_last=True), Stage.LEAVING),
        (Answer(MORE_THAN_FITS, is_last=False), Stage.SENDING),
    ],
)
def test_a_request_that_was_answered_is_held_no_longer(asked: Connection, answer: Answer, then: Stage) -> None:
    request = ref(asked.arrival)
    asked.give(answer)
    assert asked.send() is then
    assert request() is None
    assert len(asked.arrival) == len(NEXT)


def test_an_answer_that_was_sent_is_held_no_longer(asked: Connection) -> None:
    data = bytearray(b"done")
    asked.give(Answer(data, is_last=False))
    asked.send()
    data.clear()  # a BufferError, if anybody looks at it
