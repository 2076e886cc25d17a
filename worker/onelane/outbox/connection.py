"""One connection to a provider: a request is written, its answer is read, and then the next may follow.

HTTP itself is h11's, as under httpx2. The client of httpx2 cares for cookies, redirects, proxies and several kinds of
event loops as well, of which a reply needs nothing, and took four times the CPU. Errors are those of httpx2.
"""

import asyncio
import select
import time
from typing import TYPE_CHECKING, Final

import h11
import httpx2

from onelane.channels.sending import Request
from onelane.channels.verdicts import Response
from onelane.outbox.addresses import Address, Origin
from onelane.outbox.sending import ANSWER_MAX_BYTES

if TYPE_CHECKING:
    from ssl import SSLContext

CONNECT_S: Final = 3.0
READ_S: Final = 15.0
WRITE_S: Final = 10.0
KEPT_S: Final = 20.0
"""How long a connection is kept that nobody uses."""
UNREAD_MAX_BYTES: Final = 2**18
"""Who sends more than is read waits."""
HEAD_MAX_BYTES: Final = 100 * 2**10
SECOND_ADDRESS_S: Final = 0.25
"""A server with several addresses that is silent for so long is tried at the next one, too."""


class Connection(asyncio.Protocol):
    """One connection: what was received and is not read yet, and how far HTTP is on it."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.is_free = True
        """Whether the last request was answered, and another may follow."""
        self._transport: asyncio.Transport
        self._http = h11.Connection(h11.CLIENT, HEAD_MAX_BYTES)
        self._received = bytearray()
        self._is_over = False
        self._error: Exception | None = None
        self._changed: asyncio.Future[None] | None = None
        """What the request waits for: bytes, or room for more of its own."""
        self._is_full = False
        """Whether what was written does not leave as fast."""
        self._used_at = time.monotonic()

    async def answer(self, request: Request, address: Address, until: float) -> Response:
        """Make a request, and read its answer. The connection is free again if that was all there is."""
        self.is_free = False
        written = self._written(request, address)
        if asyncio.get_running_loop().time() >= until:
            raise TimeoutError  # the process was stopped before this
        self._transport.write(written)
        if self._is_full:
            await self._left()
        head, body = await self._head(), bytearray()
        while len(body) <= ANSWER_MAX_BYTES:
            match await self._event():
                case h11.Data(data=data):
                    body += data
                case _:
                    self._end_request()
                    break
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        return Response(head.status_code, headers, bytes(body[:ANSWER_MAX_BYTES]))

    @property
    def is_usable(self) -> bool:
        """Whether the server still listens, as far as is known. What it says unasked is its good-bye."""
        is_kept = time.monotonic() - self._used_at < KEPT_S
        return is_kept and not (self._is_over or self._received) and not _is_readable(self._transport)

    def close(self) -> None:
        """Close it, whatever is under way."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - says so to mypy
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Keep what came until it is read."""
        self._received += data
        if len(self._received) > UNREAD_MAX_BYTES:
            self._transport.pause_reading()
        self._change()

    def eof_received(self) -> bool:
        """Note that nothing more comes; what is written may still leave."""
        self._is_over = True
        self._change()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, and why."""
        self._is_over, self._error, self._is_full = True, exc, False
        self._change()

    def pause_writing(self) -> None:
        """Note that no more is to be written."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Note that more may be written."""
        self._is_full = False
        self._change()

    def _written(self, request: Request, address: Address) -> bytes:
        """Write a request down: its head and its body leave together."""
        length = [("Content-Length", str(len(request.body)))] if request.body or request.method != "GET" else []
        headers = [*address.headers, *request.headers.items(), *length]
        try:
            return b"".join(
                self._http.send(event) or b""
                for event in (
                    h11.Request(method=request.method, target=address.target, headers=headers),
                    *([h11.Data(request.body)] if request.body else []),
                    h11.EndOfMessage(),
                )
            )
        except h11.LocalProtocolError as error:
            raise httpx2.LocalProtocolError(str(error)) from error

    async def _head(self) -> h11.Response:
        while not isinstance(event := await self._event(), h11.Response):
            pass  # such as 103, before the answer itself
        return event

    async def _event(self) -> h11.Event:
        try:
            while not isinstance(event := self._http.next_event(), h11.Event):
                self._http.receive_data(await self._read())
        except h11.RemoteProtocolError as error:
            raise httpx2.RemoteProtocolError(str(error)) from error
        return event

    async def _read(self) -> bytes:
        """Return what was received; nothing at the end."""
        if not self._received and not self._is_over:
            await self._change_within(READ_S, httpx2.ReadTimeout)
        if not self._received and self._error:
            raise httpx2.ReadError("the connection is lost") from self._error
        data, self._received = bytes(self._received), bytearray()
        if not self._is_over:
            self._transport.resume_reading()
        return data

    async def _left(self) -> None:
        """Wait until the most of what was written has left; a server that answers before is listened to."""
        while self._is_full and not self._received and not self._is_over:
            await self._change_within(WRITE_S, httpx2.WriteTimeout)

    async def _change_within(self, seconds: float, late: type[httpx2.TimeoutException]) -> None:
        self._changed = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._changed
        except TimeoutError:
            raise late("the provider is silent") from None
        finally:
            self._changed = None

    def _change(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _end_request(self) -> None:
        if (
            self._http.our_state is h11.DONE
            and self._http.their_state is h11.DONE
            and not (self._is_over or self._http.trailing_data[0])
        ):
            self._http.start_next_cycle()
            self._used_at = time.monotonic()
            self.is_free = True


async def connected(origin: Origin, trust: "SSLContext | None") -> Connection:
    """Connect, in the clear or to a server that `trust` knows; raise httpx2's ConnectError or ConnectTimeout."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_S):
            _, connection = await loop.create_connection(
                lambda: Connection(origin),
                origin.host,
                origin.port,
                ssl=trust,
                happy_eyeballs_delay=SECOND_ADDRESS_S,
            )
    except TimeoutError:
        raise httpx2.ConnectTimeout("no connection in time") from None
    except OSError as error:
        raise httpx2.ConnectError("no connection") from error
    return connection


def _is_readable(transport: asyncio.Transport) -> bool:
    """Whether something has come, or an end, of which the loop does not know yet."""
    found = select.poll()
    found.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(found.poll(0))
