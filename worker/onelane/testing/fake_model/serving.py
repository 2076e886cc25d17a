"""The fake model's server: it answers whole or in a stream, and lets go wrong what is planned."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from onelane.model import JsonObject
from onelane.testing.fake_model.answers import answer
from onelane.testing.fake_providers.http import Answer, HttpError, Request, answer_of, read_body, read_head
from onelane.testing.fake_providers.journal import Journal
from onelane.testing.model_protocols import ProtocolError

HOST: Final = "127.0.0.1"
HEAD_MAX: Final = 64 * 2**10
CONTROL: Final = "control"
PIECE: Final = 16
"""Letters in one event of a stream."""
SILENT_S: Final = 600.0
PAUSE_MAX_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request."""

    status: int = 200
    retry_after_s: int | None = None
    cut: str | None = None
    """`half`: the stream ends in its middle; `silent`: it says nothing more from there on; `garbage`: it is no JSON."""
    delay_s: float = 0.0
    """Before the first byte."""


class Serving:
    """The fake model behind one address."""

    def __init__(self, journal: Journal, token: str, delay_s: float) -> None:
        """Answer each request after `delay_s`; whoever has the token plans faults."""
        self._journal = journal
        self._token = token
        self._delay_s = min(delay_s, PAUSE_MAX_S)
        self._faults: deque[Fault] = deque()

    async def open(self, port: int) -> asyncio.Server:
        """Listen on a port; 0 takes a free one."""
        return await asyncio.start_server(self._connected, HOST, port, limit=HEAD_MAX)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await read_head(reader):
                body = await read_body(reader, head)
                if not await self._served(Request(**{**_fields(head), "body": body}), writer):
                    break
        except (HttpError, ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked is gone, or speaks something else
        finally:
            writer.close()

    async def _served(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; return whether the connection stays open."""
        if request.channel == CONTROL:
            return await _write(writer, self._planned(request))
        asked = request.json()
        if request.method != "POST" or request.path != "/chat/completions":
            return await _write(writer, _error(404, "there is /v1/chat/completions"))
        fault = self._faults.popleft() if self._faults else Fault(delay_s=self._delay_s)
        key = request.headers.get("idempotency-key")
        self._journal.write("asked", key=key, messages=len(asked.get("messages") or []), status=fault.status)
        await asyncio.sleep(fault.delay_s)
        if fault.status != 200:  # noqa: PLR2004 - HTTP's number for: all is well
            headers = {"Retry_After": str(fault.retry_after_s)} if fault.retry_after_s is not None else {}
            return await _write(writer, _error(fault.status, "a fault that was planned", **headers))
        try:
            message = answer(asked)
        except (ProtocolError, KeyError, TypeError, AttributeError) as problem:
            self._journal.write("refused", key=key, why=str(problem))
            return await _write(writer, _error(400, str(problem)))
        if not asked.get("stream"):
            return await _write(
                writer, answer_of({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
            )
        return await _streamed(writer, message, fault)

    def _planned(self, request: Request) -> Answer:
        """Plan what happens to the next requests: a list of a Fault's fields."""
        if request.headers.get("authorization") != f"Bearer {self._token}":
            return _error(401, "the token is wrong")
        self._faults.extend(Fault(**fields) for fields in request.json().get("faults", []))
        return answer_of({"planned": len(self._faults)})


def _fields(request: Request) -> JsonObject:
    return {name: getattr(request, name) for name in ("method", "channel", "path", "query", "headers")}


def _error(status: int, why: str, **headers: str) -> Answer:
    return answer_of({"error": {"message": why, "type": "fake_model"}}, status, **headers)


async def _write(writer: asyncio.StreamWriter, found: Answer) -> bool:
    writer.write(found.encoded())
    await writer.drain()
    return True


async def _streamed(writer: asyncio.StreamWriter, message: JsonObject, fault: Fault) -> bool:
    """Send the message as events, in chunks; where the fault cuts it, the connection ends."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    events = [*(json.dumps(_chunk(delta)) for delta in _deltas(message)), "[DONE]"]
    for number, event in enumerate(events):
        if fault.cut and number >= len(events) // 2:
            if fault.cut == "silent":
                await writer.drain()
                await asyncio.sleep(SILENT_S)
            if fault.cut == "garbage":
                writer.write(_chunked("data: {no json\n\n"))
            return False
        writer.write(_chunked(f"data: {event}\n\n"))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _chunk(delta: JsonObject) -> JsonObject:
    return {"object": "chat.completion.chunk", "created": int(time.time()), "choices": [{"index": 0, "delta": delta}]}


def _deltas(message: JsonObject) -> Iterator[JsonObject]:
    """Take a message apart as the service does: arguments come in pieces too."""
    yield {"role": "assistant"}
    for call in message.get("tool_calls", []):
        function = call["function"]
        yield {"tool_calls": [{"index": 0, **call, "function": {"name": function["name"], "arguments": ""}}]}
        for piece in _pieces(function["arguments"]):
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
    for piece in _pieces(message["content"] or ""):
        yield {"content": piece}


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def _chunked(text: str) -> bytes:
    data = text.encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
