"""Requests to one channel's provider: one at most for each mark, within a deadline; no redirects, no repetitions.

Nothing of an address, a header or a body leaves this module but to the provider: they hold tokens, texts and numbers.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Final

from onelane.channels.sender import Sender
from onelane.channels.sending import LookUp, Outgoing, Request, Uploading
from onelane.channels.verdicts import Outcome, Response, Unsendable, Verdict, Word, judge_error, unknown
from onelane.errors import describe, kind_of
from onelane.model import Attachment
from onelane.telemetry.log import event

if TYPE_CHECKING:
    from ssl import SSLContext

    import httpx2
    from httpx2 import AsyncClient

CONNECT_S: Final = 3.0
READ_S: Final = 15.0
WRITE_S: Final = 10.0
POOL_S: Final = 1.0
KEPT_S: Final = 20.0
"""How long a connection is kept that nobody uses."""
ANSWER_MAX_BYTES: Final = 2**20
"""What is longer is cut off."""
LOOK_UP_MAX: Final = 10
"""Requests of one look-up."""
LIBRARIES: Final = ("httpx2", "httpcore2")


class Sending:
    """The requests of one channel."""

    def __init__(self, sender: Sender, client: "Clients", deadline_s: float) -> None:
        """Send through `client`, which is ours alone."""
        self.sender = sender
        self._client = client
        self._deadline_s = deadline_s

    async def send(self, out: Outgoing) -> Verdict:
        """Send a reply once, and judge the answer, or that there is none.

        The deadline begins here: who is frozen before the request is written does not write it when it goes on.
        """
        until = asyncio.get_running_loop().time() + self._deadline_s
        try:
            request = self.sender.request(out)
        except Unsendable as problem:
            return Verdict(Outcome.NEVER, problem.word)
        except Exception as error:  # noqa: BLE001 - nothing was sent, and the same would happen again
            event("reply_not_written", reply_id=out.key, failure=describe(error))
            return Verdict(Outcome.NEVER, Word.BAD_CONTENT)
        try:
            return self.sender.judge(out, await self.call(request, until))
        except Exception as error:  # noqa: BLE001 - whatever it is: the request may have arrived
            return judge_error(error)

    async def look_up(self, steps: LookUp) -> tuple[Verdict, float | None]:
        """Ask for a reply; return what is known, and how long the provider asks to wait before it is asked again."""
        verdict, wait_s = unknown(), None
        try:
            async with asyncio.timeout(self._deadline_s):
                request = next(steps)
                for _ in range(LOOK_UP_MAX):
                    response = await self.call(request)
                    wait_s = response.retry_after_s()
                    request = steps.send(response)
        except StopIteration as ended:
            verdict = ended.value
        except Exception as error:  # noqa: BLE001 - nobody knows more than before
            event("look_up_failed", error=kind_of(error))
        return verdict, wait_s

    async def upload(self, steps: Uploading) -> Attachment | Verdict:
        """Hand a file to the provider; return how it names it, or why it did not take it."""
        try:
            async with asyncio.timeout(self._deadline_s):
                request = next(steps)
                for _ in range(LOOK_UP_MAX):
                    request = steps.send(await self.call(request))
        except StopIteration as ended:
            found: Attachment | Verdict = ended.value
            return found
        except Unsendable as problem:
            return Verdict(Outcome.NEVER, problem.word)
        except Exception as error:  # noqa: BLE001 - a file that is there twice harms nobody
            return judge_error(error)
        return unknown()

    async def call(self, request: Request, until: float | None = None) -> Response:
        """Make one request, which ends at `until` by the loop's clock; raise what httpx2 raises, or TimeoutError."""
        headers = {**request.headers, "Accept-Encoding": "identity"}
        async with (
            asyncio.timeout_at(until or asyncio.get_running_loop().time() + self._deadline_s),
            self._client.stream(request.method, request.url, headers=headers, content=request.body or None) as answer,
        ):
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > ANSWER_MAX_BYTES:
                    break
            return Response(answer.status_code, dict(answer.headers), bytes(body[:ANSWER_MAX_BYTES]))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class Clients:
    """A client for each connection, the one used last first.

    A client with several looks at all its idle connections for every request, which costs more than the request.
    """

    def __init__(self, opened: Callable[[], "AsyncClient"], connections_max: int) -> None:
        self._opened = opened
        self._room = asyncio.Semaphore(connections_max)
        self._all: list[AsyncClient] = []
        self._idle: list[AsyncClient] = []

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | None
    ) -> AsyncIterator["httpx2.Response"]:
        """Make a request; a connection that nobody uses is there within `connections_max` requests."""
        async with self._room:
            client = self._idle.pop() if self._idle else self._one_more()
            try:
                async with client.stream(method, url, headers=headers, content=content) as answer:
                    yield answer
            finally:
                self._idle.append(client)

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._all:
            await client.aclose()

    def _one_more(self) -> "AsyncClient":
        self._all.append(client := self._opened())
        return client


@cache
def trusted() -> "SSLContext":
    """Return whom to trust: one for all clients of the process, since each takes a tenth of a second."""
    import httpx2  # noqa: PLC0415 - who sends nothing does not need it

    return httpx2.create_ssl_context(trust_env=False)


def open_client(sender: Sender, connections_max: int) -> Clients:
    """Make what sends for one channel. The first import of httpx2 takes half a second: not on an event loop."""
    import httpx2  # noqa: PLC0415 - as above

    _silence()
    client = partial(
        httpx2.AsyncClient,
        verify=trusted(),
        transport=sender.transport,
        follow_redirects=False,
        trust_env=False,
        timeout=httpx2.Timeout(connect=CONNECT_S, read=READ_S, write=WRITE_S, pool=POOL_S),
        limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEPT_S),
    )
    return Clients(client, connections_max)


def _silence() -> None:
    """Let the libraries log no request: addresses and headers hold tokens."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
