"""A log that nobody reads stops nobody; what is left out is counted."""

import os
from collections.abc import Iterator
from typing import TextIO

import pytest

from onelane.telemetry import standard_error
from onelane.telemetry.standard_error import PART_BYTES, StandardError

LINE = "x" * (2 * PART_BYTES) + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        yield reader, stream
        os.close(reader)


def fill(log: StandardError, left_out: list[int]) -> None:
    """Write until lines are left out."""
    while not log._left_out:
        log.write(LINE)
    assert left_out == []


@pytest.mark.timeout(30)
def test_a_line_that_nobody_takes_is_left_out_and_counted_once_there_is_room(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standard_error, "WAIT_S", 0.05)
    reader, stream = pipe
    left_out: list[int] = []
    log = StandardError(stream, left_out.append)
    fill(log, left_out)
    for _ in range(100):
        log.write("left out\n")
    os.read(reader, 1_000_000)
    log.write("there is room\n")
    assert left_out == [101]
    written = os.read(reader, 1_000_000).decode()
    assert written.splitlines()[-1] == "there is room"
    assert "left out" not in written


def test_a_long_line_is_written_whole(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    StandardError(stream, lambda _lines: None).write("\u00e9\ud800" * 5_000 + "\n")
    assert os.read(reader, 1_000_000).decode() == "\u00e9\\ud800" * 5_000 + "\n"
