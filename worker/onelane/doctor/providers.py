"""The check of the providers, for whoever asks: a connection to where each channel sends, and a try of its token.

A try is one harmless call. All are made at once, within a bound of time. What is found quotes no address beyond its
host, and no answer beyond its code: tokens are in both.
"""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from onelane.channels import providers
from onelane.channels.fetching import open_client
from onelane.channels.sender import Sender
from onelane.channels.sending import Outgoing, Piece, Request
from onelane.channels.verdicts import Response
from onelane.doctor.finding import Deployment, Finding, failed, ok

if TYPE_CHECKING:
    from httpx2 import AsyncClient

WITHIN_S: Final = 10.0
AT_ONCE_MAX: Final = 32
HTTPS_PORT, HTTP_PORT = 443, 80
NOBODY: Final = Outgoing(UUID(int=0), (), Piece())
CHECK_ADDRESS: Final = "check the channel's address, the name server, and that the system's certificates are installed"
CHECK_ACCOUNT: Final = "check the channel's token, its rights, and the account in the provider's console"


class Tried(NamedTuple):
    """What came of one channel's try."""

    channel: str
    wrong: str = ""
    """Empty when all is well."""
    todo: str = ""
    has_token: bool = False
    """Whether its token was tried."""


def providers_answer(deployment: Deployment) -> Finding:
    """Check that every provider can be reached, and takes the channel's token."""
    senders = {name: provider.sender for name, provider in providers(deployment.settings.channels).items()}
    on_the_net = {name: sender for name, sender in senders.items() if sender and sender.base_url}
    with closing(asyncio.new_event_loop()) as loop:  # closed so, it waits for no name server
        tried = loop.run_until_complete(_try_all(on_the_net))
    wrong = [one for one in tried if one.wrong]
    if not wrong:
        return ok(
            f"channels that reach their providers: {len(tried)}; tokens tried: {sum(one.has_token for one in tried)}"
        )
    return failed(
        f"channels that cannot send: {len(wrong)} of {len(tried)}",
        "; ".join(dict.fromkeys(one.todo for one in wrong)),
        tuple(f"{one.channel}: {one.wrong}" for one in wrong),
    )


async def _try_all(senders: Mapping[str, Sender]) -> list[Tried]:
    places = asyncio.Semaphore(AT_ONCE_MAX)
    async with open_client() as client:

        async def one(channel: str, sender: Sender) -> Tried:
            try:
                async with asyncio.timeout(WITHIN_S), places:
                    return await _try(client, channel, sender)
            except TimeoutError:
                return Tried(channel, f"no answer from {_host(sender)} within {WITHIN_S:g} s", CHECK_ADDRESS)

        return await asyncio.gather(*(one(channel, sender) for channel, sender in senders.items()))


async def _try(client: "AsyncClient", channel: str, sender: Sender) -> Tried:
    import httpx2  # noqa: PLC0415 - it takes long, and few ask

    try:
        await _shake_hands(sender.base_url or "")
        if (probe := sender.probe()) is None:
            return Tried(channel)
        answer = await _asked(client, probe)
    except ssl.SSLCertVerificationError as error:
        return Tried(
            channel, f"the certificate of {_host(sender)} is not trusted: {error.verify_message}", CHECK_ADDRESS
        )
    except (OSError, ValueError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        return Tried(channel, f"no connection to {_host(sender)}: {type(error).__name__}", CHECK_ADDRESS)
    if sender.is_well(answer):
        return Tried(channel, has_token=True)
    verdict = sender.judge(NOBODY, answer)
    means = ", ".join(filter(None, (verdict.code and f"code {verdict.code}", verdict.word)))
    return Tried(channel, f"{_host(sender)} answers {answer.status} ({means})", CHECK_ACCOUNT, has_token=True)


async def _shake_hands(address: str) -> None:
    """Connect to an address as sending does, and say nothing."""
    import httpx2  # noqa: PLC0415 - as above

    parts = urlsplit(address)
    is_tls = parts.scheme == "https"
    trusted = httpx2.create_ssl_context(trust_env=False) if is_tls else None
    port = parts.port or (HTTPS_PORT if is_tls else HTTP_PORT)
    _, writer = await asyncio.open_connection(parts.hostname, port, ssl=trusted)
    writer.close()


async def _asked(client: "AsyncClient", request: Request) -> Response:
    answer = await client.request(
        request.method, request.url, headers=dict(request.headers), content=request.body or None
    )
    return Response(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content)


def _host(sender: Sender) -> str:
    """Name where a channel sends: a path may hold a secret."""
    parts = urlsplit(sender.base_url or "")
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
