"""Connections to one channel's provider that are kept: one request at a time on each, the one used last first."""

import asyncio
from typing import TYPE_CHECKING

from onelane.channels.sending import Request
from onelane.channels.verdicts import Response
from onelane.outbox.addresses import Origin, address_of
from onelane.outbox.connection import Connection, connected

if TYPE_CHECKING:
    from ssl import SSLContext


class Connections:
    """The connections of one channel, on one event loop."""

    def __init__(self, most: int, trust: "SSLContext") -> None:
        """Open at most so many, to servers that `trust` knows."""
        self._most, self._trust = most, trust
        self._room = asyncio.Semaphore(most)
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        """The one used last is the last."""

    async def answer(self, request: Request, until: float) -> Response:
        """Make a request, which is not begun after `until` by the loop's clock; raise an error of httpx2."""
        address = address_of(request.url)
        async with self._room:
            connection = self._idle_to(address.origin) or await self._new_to(address.origin)
            try:
                return await connection.answer(request, address, until)
            finally:
                self._take_back(connection)

    async def close(self) -> None:
        """Close all connections."""
        for connection in list(self._open):
            self._close(connection)

    def _idle_to(self, origin: Origin) -> "Connection | None":
        for connection in reversed(self._idle):
            if connection.origin == origin:
                self._idle.remove(connection)
                if connection.is_usable:
                    return connection
                self._close(connection)
        return None

    async def _new_to(self, origin: Origin) -> "Connection":
        while self._idle and len(self._open) >= self._most:
            self._close(self._idle.pop(0))
        connection = await connected(origin, self._trust if origin.is_secure else None)
        self._open.add(connection)
        return connection

    def _take_back(self, connection: "Connection") -> None:
        if connection in self._open and connection.is_free:
            self._idle.append(connection)
        else:
            self._close(connection)

    def _close(self, connection: "Connection") -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        connection.close()
