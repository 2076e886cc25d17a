"""A request while it arrives: bytes go in, and it is known when it is whole."""

import re
from typing import Any, Final

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

HEAD_MAX_BYTES: Final = 65_536
LINE_MAX_BYTES: Final = 8_192
"""Of the line before a chunk, and of what follows the last one."""
FRAMED_FACTOR: Final = 2
"""Chunks may cost as much again as what they carry."""
HEAD_END: Final = b"\r\n\r\n"
CHUNK_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?", re.DOTALL)


class Arrival:
    """One request of a client. Gunicorn parses it, once; here it is only found out where it ends."""

    def __init__(self, cfg: Any, address: Any, body_max_bytes: int, received: bytes = b"") -> None:
        """Begin with what the client has sent already."""
        self._cfg = cfg
        self._address = address
        self._body_max_bytes = body_max_bytes
        self._received = bytearray(received)
        self._searched = 0
        self._pieces: list[bytes] = []
        self._request: Any = None
        self._error: Exception | None = None
        self._chunks: Chunks | None = None
        self._awaits_continue = False
        self.is_broken = False
        """Whether its end is unknown, or too far away to wait for: the connection ends with its answer."""

    def __len__(self) -> int:
        """Count the bytes that are held."""
        return len(self._received) + sum(map(len, self._pieces))

    @property
    def has_begun(self) -> bool:
        """Whether anything of it has come in."""
        return bool(self._received) or self._request is not None

    def awaits_continue(self) -> bool:
        """Whether the client sends the body only when it is asked to: true once, and then it has to be asked."""
        awaits, self._awaits_continue = self._awaits_continue, False
        return awaits

    @property
    def request(self) -> Any:
        """The whole request, parsed; raises what is wrong with it."""
        if self._error:
            raise self._error
        return self._request

    @property
    def path(self) -> str:
        """The path of the whole request; empty where it cannot be understood."""
        return self._request.path if self._request and not self._error else ""

    def add(self, data: bytes) -> None:
        """Take what has come in."""
        self._received += data

    def is_whole(self) -> bool:
        """Whether to hand it over: it has all its bytes, or more of them would not help."""
        if self._request is None and not self._parse_head():
            return False
        if self._error:
            return True
        try:
            end = self._end_of_body()
        except ValueError:
            return self._hand_over(len(self._received), is_broken=True)
        return end is not None and self._hand_over(end)

    def is_read(self) -> bool:
        """Whether the application's side found the same end, so that the next request begins behind it."""
        try:
            self._request.body.read()
        except Exception:  # noqa: BLE001 - whatever is wrong with a body, no request is looked for behind it
            return False
        return not self._unreader.take_buffered()

    def next(self) -> "Arrival":
        """Begin the client's next request, with what has come in of it."""
        return Arrival(self._cfg, self._address, self._body_max_bytes, bytes(self._received))

    def _parse_head(self) -> bool:
        end = self._received.find(HEAD_END, max(0, self._searched - len(HEAD_END)), HEAD_MAX_BYTES)
        self._searched = len(self._received)
        if end < 0 and len(self._received) < HEAD_MAX_BYTES:
            return False
        try:
            self._request = self._parsed(end)
            self._awaits_continue = self._request._expected_100_continue  # noqa: SLF001 - it has no other name
        except Exception as error:  # noqa: BLE001 - the thread that answers raises it again
            self._error, self.is_broken = error, True
        return True

    def _parsed(self, end: int) -> Any:
        if end < 0:
            raise LimitRequestHeaders("max buffer headers")
        self._pieces.append(self._take(end + len(HEAD_END)))
        self._unreader = IterUnreader(self._pieces)
        return Request(self._cfg, self._unreader, self._address)

    def _end_of_body(self) -> int | None:
        """Find how many bytes the body has, if they are all there; raise ValueError if they will not be waited for."""
        reader = self._request.body.reader
        if not isinstance(reader, ChunkedReader):
            length: int = reader.length
            if length > self._body_max_bytes:
                raise ValueError("too large")
            return length if len(self._received) >= length else None
        self._chunks = self._chunks or Chunks()
        end = self._chunks.end(self._received)
        is_endless = end is None and len(self._received) > FRAMED_FACTOR * self._body_max_bytes
        if is_endless or self._chunks.size > self._body_max_bytes:
            raise ValueError("too large")
        return end

    def _hand_over(self, end: int, *, is_broken: bool = False) -> bool:
        self._pieces.append(self._take(end))
        self.is_broken = is_broken
        return True

    def _take(self, end: int) -> bytes:
        taken = bytes(self._received[:end])
        del self._received[:end]
        return taken


class Chunks:
    """Where a chunked body ends. Each chunk is looked at once, however slowly it arrives."""

    def __init__(self) -> None:
        """Begin at the first chunk."""
        self._at = 0
        self.size = 0
        """How many bytes the chunks seen so far carry."""

    def end(self, received: bytearray) -> int | None:
        """Return where the body ends, or None while it goes on; raise ValueError when it is no chunked body."""
        while (line_end := received.find(b"\r\n", self._at)) >= 0:
            line = CHUNK_SIZE.fullmatch(received, self._at, min(line_end, self._at + LINE_MAX_BYTES))
            if line is None or line.end() != line_end:
                raise ValueError("not the size of a chunk")
            size = int(line[1], 16)
            if not size:
                return self._end_of_trailers(received, line_end)
            self.size += size
            self._at = line_end + size + 4
        if len(received) - self._at > LINE_MAX_BYTES:
            raise ValueError("the line before a chunk is too long")
        return None

    @staticmethod
    def _end_of_trailers(received: bytearray, last_line_end: int) -> int | None:
        end = received.find(HEAD_END, last_line_end)
        if end < 0 and len(received) - last_line_end > LINE_MAX_BYTES:
            raise ValueError("too much behind the last chunk")
        return end + len(HEAD_END) if end >= 0 else None
