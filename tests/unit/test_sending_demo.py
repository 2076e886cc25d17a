"""The provider `demo`: what it takes never leaves the process."""

from typing import cast
from uuid import UUID

import httpx2
import pytest

from onelane.channels import provider_of
from onelane.channels.demo import DemoSender
from onelane.channels.sending import Outgoing, Piece
from onelane.channels.verdicts import Outcome, Response
from onelane.config import Channel
from onelane.errors import ConfigError
from tests import loops
from tests.conftest import SECRET

KEY = UUID(int=6)


def test_every_reply_is_taken_in_this_process() -> None:
    sender = cast(DemoSender, provider_of(Channel(provider="demo", secrets=(SECRET,))).sender)
    out = Outgoing(KEY, ("alice",), Piece(text="hello"))
    request = sender.request(out)

    async def answered() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=sender.transport, trust_env=False) as client:
            return await client.request(
                request.method, request.url, headers=dict(request.headers), content=request.body
            )

    answer = loops.run(answered())
    verdict = sender.judge(out, Response(answer.status_code, dict(answer.headers), answer.content))
    assert (verdict.outcome, verdict.provider_id) == (Outcome.ACCEPTED, str(KEY))
    assert sender.base_url is None


def test_it_has_no_address_of_yours() -> None:
    with pytest.raises(ConfigError, match=r"^reply_url: is unknown"):
        provider_of(Channel(provider="demo", secrets=(SECRET,), reply_url="https://bot.example/replies"))
