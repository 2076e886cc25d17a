"""The wire between our processes: JSON both ways, every wait bounded, and nothing is ever unpickled."""

import json
import os
import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from onelane.wire import MESSAGE_MAX_BYTES, Wire
from tests.conftest import DEADLINE_S, eventually

Ends = tuple[Wire, Wire]
Raw = tuple[Wire, Connection]

STALL_S = 0.2
"""A wait of the wire itself; what the tests measure may take this and a busy machine's delay."""


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Two wires, of this process and another."""
    ours, theirs = Pipe()
    with ours, theirs:
        yield Wire(ours, DEADLINE_S), Wire(theirs, DEADLINE_S)


@pytest.fixture
def raw() -> Iterator[Raw]:
    """A wire, and the bare connection at its other end."""
    ours, theirs = Pipe()
    with ours, theirs:
        yield Wire(ours, DEADLINE_S), theirs


@pytest.fixture
def impatient() -> Iterator[Raw]:
    """A wire that bears no stall, and the bare connection at its other end."""
    ours, theirs = Pipe()
    with ours, theirs:
        yield Wire(ours, STALL_S), theirs


def framed(message: bytes) -> bytes:
    return struct.pack("!i", len(message)) + message


@contextmanager
def in_time(within_s: float = 10) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < within_s


@pytest.mark.parametrize(
    "value",
    [0, 1.5, True, "", "text", "é 😀 \x00 \x1f", "\ud800", [], {}, {"a": [1, {"b": None}]}, "x" * 3_000_000],
    ids=lambda value: repr(value)[:20],
)
def test_a_value_arrives_as_it_was_sent_both_ways(value: Any, ends: Ends) -> None:
    for here, there in (ends, ends[::-1]):
        sending = threading.Thread(target=here.send, args=(value,))
        sending.start()
        assert there.receive(DEADLINE_S) == value
        sending.join()


def test_messages_keep_their_order_and_their_bounds(ends: Ends) -> None:
    here, there = ends
    for nr in range(100):
        here.send({"nr": nr})
    assert [there.receive(DEADLINE_S)["nr"] for _ in range(100)] == list(range(100))


def test_receiving_waits_no_longer_than_it_is_asked_to(ends: Ends) -> None:
    with in_time():
        assert ends[0].receive(0) is None
        assert ends[0].receive(0.05) is None


def test_without_a_bound_it_waits_for_the_next_message(ends: Ends) -> None:
    here, there = ends
    received: list[Any] = []
    waiting = threading.Thread(target=lambda: received.append(here.receive(None)))
    waiting.start()
    there.send("late")
    waiting.join(DEADLINE_S)
    assert received == ["late"]


def test_the_end_of_the_other_side_is_an_end_of_file(raw: Raw) -> None:
    wire, other = raw
    other.close()
    with pytest.raises(EOFError):
        wire.receive(None)
    with pytest.raises(BrokenPipeError):
        wire.send("nobody reads this")


def test_what_was_sent_before_the_end_still_arrives(ends: Ends) -> None:
    here, there = ends
    there.send("last")
    there.close()
    assert here.receive(None) == "last"
    with pytest.raises(EOFError):
        here.receive(None)


@pytest.mark.parametrize("sent", [framed(b"1234")[:2], framed(b"1234")[:4], framed(b"1234")[:6]])
def test_an_end_in_the_middle_of_a_message_is_an_error(sent: bytes, raw: Raw) -> None:
    wire, other = raw
    os.write(other.fileno(), sent)
    other.close()
    with in_time(), pytest.raises((EOFError, OSError)):
        wire.receive(None)


@pytest.mark.parametrize("side", [0, 1])
def test_shutting_down_ends_it_for_both_whoever_waits(side: int, ends: Ends) -> None:
    ended: list[Wire] = []

    def wait(wire: Wire) -> None:
        with pytest.raises(EOFError):
            wire.receive(None)
        ended.append(wire)

    waiting = [threading.Thread(target=wait, args=(wire,)) for wire in ends]
    for thread in waiting:
        thread.start()
    ends[side].shut_down()
    for thread in waiting:
        thread.join(DEADLINE_S)
    assert len(ended) == 2


def test_shutting_down_frees_who_is_stuck_in_sending(raw: Raw) -> None:
    ours, theirs = Pipe()
    with ours, theirs:
        wire = Wire(ours, 3_600)
        errors: list[OSError] = []

        def send() -> None:
            try:
                wire.send("x" * 3_000_000)
            except OSError as error:
                errors.append(error)

        sending = threading.Thread(target=send)
        sending.start()
        eventually(lambda: theirs.poll(0))
        wire.shut_down()
        sending.join(DEADLINE_S)
        assert isinstance(errors[0], BrokenPipeError)


def test_a_closed_wire_can_be_shut_down_and_strikes_nobody_else(ends: Ends) -> None:
    here, _ = ends
    number = here._connection.fileno()
    here.close()
    mine, other = socket.socketpair()
    with mine, other:
        assert number in {mine.fileno(), other.fileno()}, "the number was to be used again"
        here.shut_down()
        mine.send(b"x")
        assert other.recv(1) == b"x"


def test_a_message_that_is_too_long_is_not_sent(ends: Ends) -> None:
    here, there = ends
    with pytest.raises(ValueError, match="at most"):
        here.send("x" * MESSAGE_MAX_BYTES)
    here.send("the wire still works")
    assert there.receive(DEADLINE_S) == "the wire still works"


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("!i", MESSAGE_MAX_BYTES + 1),
        struct.pack("!i", 2**31 - 1),
        struct.pack("!iQ", -1, 2**63),
        struct.pack("!i", -2),
    ],
    ids=["one more", "2 GB", "8 EB", "negative"],
)
def test_a_message_that_claims_to_be_too_long_is_refused_before_it_is_read(head: bytes, raw: Raw) -> None:
    wire, other = raw
    os.write(other.fileno(), head)
    with in_time(), pytest.raises(OSError, match=r"bad message length|no JSON"):
        wire.receive(None)


@pytest.mark.parametrize(
    "message",
    [b"", b"{", b"not json", b"\xff\xfe\x00", b"[" * 1_000_000, b'{"a":' * 100_000, b"1 2"],
    ids=lambda message: repr(message)[:20],
)
def test_what_is_no_json_is_an_error(message: bytes, raw: Raw) -> None:
    wire, other = raw
    sending = threading.Thread(target=other.send_bytes, args=(message,))
    sending.start()
    with pytest.raises(OSError, match="no JSON"):
        wire.receive(None)
    sending.join()


def test_a_sender_that_stops_in_the_middle_of_a_message_is_given_up(impatient: Raw) -> None:
    wire, other = impatient
    for sent in (framed(b"12345678")[:2], framed(b"12345678")[2:8]):
        os.write(other.fileno(), sent)
        with in_time(), pytest.raises(BlockingIOError):
            wire.receive(None)


def test_a_receiver_that_never_reads_is_given_up(impatient: Raw) -> None:
    wire, _ = impatient
    with in_time(), pytest.raises(BlockingIOError):
        wire.send("x" * 3_000_000)


def test_a_limit_below_a_second_is_kept(impatient: Raw) -> None:
    wire, other = impatient
    os.write(other.fileno(), b"\0")
    began = time.monotonic()
    with pytest.raises(BlockingIOError):
        wire.receive(None)
    assert time.monotonic() - began >= STALL_S * 0.9


class Planted:
    """An object whose pickle creates a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_not_read(protocol: int, raw: Raw, tmp_path: Path) -> None:
    wire, other = raw
    path = tmp_path / "planted"
    other.send_bytes(pickle.dumps(Planted(path), protocol))
    other.send(Planted(path))  # as multiprocessing itself would
    for _ in range(2):
        with pytest.raises(OSError, match="no JSON"):
            wire.receive(None)
    assert not path.exists()
    pickle.loads(pickle.dumps(Planted(path), protocol))
    assert path.exists(), "the trap works"


def test_what_is_sent_is_plain_json(raw: Raw) -> None:
    wire, other = raw
    wire.send({"text": "é"})
    assert other.recv_bytes() == json.dumps({"text": "é"}, ensure_ascii=False).encode()


def test_what_json_has_not_is_not_sent(raw: Raw) -> None:
    with pytest.raises(TypeError):
        raw[0].send(object())
