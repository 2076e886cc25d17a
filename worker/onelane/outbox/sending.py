"""Requests to one channel's provider: one at most for each mark, within a deadline; no redirects, no repetitions.

Nothing of an address, a header or a body leaves this module but to the provider: they hold tokens, texts and numbers.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from onelane.channels.sender import Sender
from onelane.channels.sending import LookUp, Outgoing, Request, Uploading
from onelane.channels.verdicts import Outcome, Response, Unsendable, Verdict, Word, judge_error, unknown
from onelane.errors import describe, kind_of
from onelane.model import Attachment
from onelane.telemetry.log import event

if TYPE_CHECKING:
    from ssl import SSLContext

    from httpx2 import AsyncBaseTransport

ANSWER_MAX_BYTES: Final = 2**20
"""What is longer is cut off."""
LOOK_UP_MAX: Final = 10
"""Requests of one look-up."""


class Carrier(Protocol):
    """What takes requests to one channel's provider: connections, or a provider in this process."""

    async def answer(self, request: Request, until: float, /) -> Response:
        """Make a request, which is not begun after `until` by the loop's clock; raise what httpx2 raises."""

    async def close(self) -> None:
        """Close what is open."""


class Sending:
    """The requests of one channel."""

    def __init__(self, sender: Sender, carrier: Carrier, deadline_s: float) -> None:
        """Send by `carrier`, which is ours alone."""
        self.sender = sender
        self._carrier = carrier
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
        until = until or asyncio.get_running_loop().time() + self._deadline_s
        async with asyncio.timeout_at(until):
            return await self._carrier.answer(request, until)

    async def close(self) -> None:
        """Close the connections."""
        await self._carrier.close()


class InProcess:
    """A provider in this process, as its sender's `transport` plays it."""

    def __init__(self, transport: "AsyncBaseTransport") -> None:
        self._transport = transport

    async def answer(self, request: Request, _until: float) -> Response:
        """Make a request."""
        import httpx2  # noqa: PLC0415 - who sends nothing does not need it

        logging.getLogger("httpx2").setLevel(logging.WARNING)  # addresses hold tokens
        async with httpx2.AsyncClient(transport=self._transport, trust_env=False) as client:
            answer = await client.request(request.method, request.url, headers=request.headers, content=request.body)
        return Response(answer.status_code, dict(answer.headers), answer.content[:ANSWER_MAX_BYTES])

    async def close(self) -> None:
        """Keep nothing open."""


def trusted() -> "SSLContext":
    """Return whom to trust: one for all connections, since each takes a tenth of a second."""
    import httpx2  # noqa: PLC0415 - as above

    return httpx2.create_ssl_context(trust_env=False)


def open_carrier(sender: Sender, connections_max: int, trust: "SSLContext | None" = None) -> Carrier:
    """Make what sends for one channel. The first import of httpx2 takes half a second: not on an event loop."""
    if sender.transport is not None:
        return InProcess(sender.transport)
    from onelane.outbox.connections import Connections  # noqa: PLC0415 - as above

    return Connections(connections_max, trust or trusted())
