"""The fakes' own server: it reads requests, lets go wrong what is planned, and keeps a journal."""

import asyncio
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Final

from onelane.model import JsonObject
from onelane.testing.fake_providers.api import Api, Call
from onelane.testing.fake_providers.callbacks import Callbacks
from onelane.testing.fake_providers.control import CONTROL, Control
from onelane.testing.fake_providers.faults import NAMES, NONE, Fault, Plan
from onelane.testing.fake_providers.http import (
    HEAD_MAX,
    Answer,
    HttpError,
    Request,
    answer_of,
    read_body,
    read_head,
)
from onelane.testing.fake_providers.journal import Journal

HOST: Final = "127.0.0.1"
CONNECTIONS_MAX: Final = 2_000
KEPT_S: Final = 120.0
BODY_S: Final = 60.0
CLOSED_S: Final = 1.0
LINGER_NOT: Final = struct.pack("ii", 1, 0)
HTML: Final = "text/html"
SOMETHING: Final = Answer(200, b'{"ok": true, "result": {}, "messages": []}')
"""What half of an answer is of, where nothing was accepted."""


class Serving:
    """All fakes behind one address."""

    def __init__(self, apis: Mapping[str, Api], journal: Journal, callbacks: Callbacks, token: str) -> None:
        """Serve each API below its channel's name."""
        self._apis = apis
        self._journal = journal
        self._callbacks = callbacks
        self._plan = Plan()
        self._control = Control(apis, self._plan, callbacks, self.be_deaf, token)
        self._numbers = count(1)
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None

    async def open(self, port: int) -> int:
        """Listen, and return the port."""
        self._server = await asyncio.start_server(self._connected, HOST, port, limit=HEAD_MAX, reuse_address=True)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Listen no more, and reset what is open."""
        if self._server:
            self._server.close()
        connections = dict(self._connections)
        for writer, serving in connections.items():
            _reset(writer)
            serving.cancel()
        if connections:
            await asyncio.wait(connections.values(), timeout=CLOSED_S)

    async def be_deaf(self, for_s: float) -> None:
        """Refuse connections for a while."""
        port = self._server.sockets[0].getsockname()[1] if self._server and self._server.sockets else 0
        await self.close()
        await asyncio.sleep(for_s)
        await self.open(port)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) < CONNECTIONS_MAX:
            self._connections[writer] = asyncio.create_task(self._requests(reader, writer))
        else:
            _reset(writer)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve what comes on a connection, until it ends."""
        try:
            while head := await asyncio.wait_for(read_head(reader), KEPT_S):
                body = await asyncio.wait_for(read_body(reader, head), BODY_S)
                if not await self._served(replace(head, body=body), reader, writer):
                    break
        except (HttpError, ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass  # whoever called is gone, or speaks something else
        finally:
            del self._connections[writer]
            writer.close()

    async def _served(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; return whether the connection stays open."""
        if request.channel == CONTROL:
            return await _write(writer, self._control.answer(request))
        api = self._apis.get(request.channel)
        call = _understood(api, request) if api else answer_of({"error": "no such channel"}, 404)
        number = next(self._numbers)
        if api is None or isinstance(call, Answer):
            refused = call if isinstance(call, Answer) else SOMETHING
            self._journal.write("refused", n=number, channel=request.channel, status=refused.status)
            return await _write(writer, refused)
        fault = self._plan.take(api.name, call.what, call.text)
        self._journal.write("received", n=number, fault=_named(fault), what=call.what, **_about(api, call))
        answer = await self._decided(number, api, call, fault)
        return await _answered(answer, fault, reader, writer)

    async def _decided(self, number: int, api: Api, call: Call, fault: Fault) -> Answer:
        """Take the request as often as the fault says, and return what would be answered."""
        answer = call.answer or SOMETHING
        for copy in range(1, fault.times + 1):
            answer = call.answer or await self._taken(number, api, call, fault, copy)
        if call.what == "presence" and fault.times:
            self._journal.write("shown", n=number, **_about(api, call))
        if fault.kind == "answer" and fault.code:
            return api.refusal(fault.code)
        if fault.kind == "limit":
            return api.limit(fault.wait_s)
        if fault.kind == "status":
            return Answer(int(fault.code or 500), b"<html>The service has a problem.</html>", HTML)
        return answer

    async def _taken(self, number: int, api: Api, call: Call, fault: Fault, copy: int) -> Answer:
        """Keep a message and show it, unless the provider sees that it has it already."""
        known = api.repeated(call) if copy == 1 else None
        if known:
            self._journal.write("repeated", n=number, **_about(api, call))
            return api.accepted(known)
        message = api.post(call)
        if not fault.later:
            self._journal.write("visible", n=number, provider_id=message.provider_id, copy=copy, **_about(api, call))
        await self._callbacks.tell(api, message, fault.later)
        return api.accepted(message)


def _understood(api: Api, request: Request) -> Call | Answer:
    try:
        return api.read(request)
    except (ValueError, TypeError, LookupError, AttributeError):
        return answer_of({"error": "an argument is not of its type"}, 400)


def _about(api: Api, call: Call) -> JsonObject:
    return {
        "channel": api.name,
        "provider": api.provider_name,
        "user": call.user,
        "key": call.key,
        "text": call.text,
        "kind": call.kind,
    }


def _named(fault: Fault) -> str | None:
    """Name a fault for the journal; None where nothing goes wrong."""
    if fault == NONE:
        return None
    later = f"later {fault.later}" if fault.later else None
    return NAMES.get(fault) or " ".join(filter(None, [fault.kind, fault.code, later]))


async def _answered(answer: Answer, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer, or what comes in its place; return whether the connection stays open."""
    whole = answer.encoded()
    if fault.kind in {"answer", "limit", "status", "closes"}:
        if fault.kind == "answer":
            await asyncio.sleep(fault.wait_s)
        await _write(writer, answer)
        return fault.kind != "closes"
    if fault.kind in {"unread", "silent"}:
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(1), fault.wait_s)  # whoever calls may give up first
    if fault.kind in {"half", "garbage"}:
        writer.write(whole[: -max(1, len(answer.body) // 2)] if fault.kind == "half" else b"\x00\xff no HTTP\r\n\r\n")
        await writer.drain()
    if fault.kind in {"unread", "silent", "reset"}:
        _reset(writer)
    return False


async def _write(writer: asyncio.StreamWriter, answer: Answer) -> bool:
    writer.write(answer.encoded())
    await writer.drain()
    return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection as a crash would: whoever is at its other end gets ECONNRESET."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.transport.abort()
