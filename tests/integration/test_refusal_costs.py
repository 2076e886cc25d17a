"""Whoever signs nothing, or wrongly, costs a web less CPU than a message that it takes: flooding it is no bargain."""

import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any
from uuid import uuid4

import pytest

from onelane.bootstrap import Services, open_services
from onelane.channels.provider import Signed
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery
from onelane_web import create_app

CHANNELS: dict[str, dict[str, Any]] = {
    "standard": {"secrets": ("whsec_c2VjcmV0IG9mIHRoZSBkZW1vIGNoYW5uZWw=",)},
    "meta": {"secrets": ("an-app-secret-of-tests",), "verify_tokens": ("a-password-of-tests",)},
    "slack": {"secrets": ("a-signing-secret-of-tests",)},
    "telegram": {"secrets": ("a-secret-token-of-tests",)},
    "twilio": {"secrets": ("an-auth-token-of-tests",), "public_url": "https://bot.example"},
}
SIGNATURES = {
    "standard": "webhook-signature",
    "meta": "x-hub-signature-256",
    "slack": "x-slack-signature",
    "telegram": "x-telegram-bot-api-secret-token",
    "twilio": "x-twilio-signature",
}
NORMAL, LARGEST = 100, 9
"""How often each is measured: medians of this thread's own CPU time, in turn, on a machine however busy."""
OVERHEAD_BYTES = 4_096
"""What a body has beside its text, at most."""
AT_MOST = 0.9
"""Of the cost of an acceptance. That of other threads, of Redis and of Postgres comes on top of it."""


@pytest.fixture
def open_to_all(services: Services, settings: Settings) -> Iterator[Services]:
    channels = {name: Channel(provider=name, **own) for name, own in CHANNELS.items()}
    opened = open_services(settings.model_copy(update={"channels": channels, "backlog_max": 10_000}))
    yield opened
    opened.close()


class Requests:
    """Requests to one channel, and what each cost."""

    def __init__(self, services: Services, name: str) -> None:
        self._provider = services.providers[name]
        self._client = create_app(services).test_client()
        self._path = f"/webhooks/{name}"
        self._url = CHANNELS[name].get("public_url", "http://localhost") + self._path
        self._signature = SIGNATURES[name]

    @property
    def largest(self) -> str:
        """A text that makes about the largest body that is read."""
        return "x" * (self._provider.body_max_bytes - OVERHEAD_BYTES)

    def signed(self, text: str) -> Signed:
        """Make the request of a new message."""
        persona = self._provider.persona("alice")
        delivery = Delivery(
            senders=persona.senders,
            conversation=persona.conversation,
            route=persona.route,
            external_id=f"msg_{uuid4().hex}",
            text=text,
        )
        return self._provider.sign(self._url, delivery)

    def forged(self, text: str) -> Signed:
        """Make one whose signature is wrong."""
        signed = self.signed(text)
        headers = dict(signed.headers)
        [name] = [name for name in headers if name.lower() == self._signature]
        middle = len(headers[name]) // 2
        other = "b" if headers[name][middle] == "a" else "a"
        headers[name] = headers[name][:middle] + other + headers[name][middle + 1 :]
        return replace(signed, headers=headers)

    def unsigned(self, text: str) -> Signed:
        """Make one without a signature."""
        signed = self.signed(text)
        headers = {name: value for name, value in signed.headers.items() if name.lower() != self._signature}
        return replace(signed, headers=headers)

    def cost_s(self, signed: Signed, *, is_accepted: bool) -> float:
        """Post it, and return what that cost this thread."""
        address = self._path + signed.query
        began = time.thread_time()
        response = self._client.post(address, data=signed.body, headers=dict(signed.headers))
        cost_s = time.thread_time() - began
        assert (response.status_code // 100 == 2) is is_accepted, response.data
        return cost_s


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("size", ["normal", "largest"])
def test_a_refusal_costs_less_than_to_accept_the_same(name: str, size: str, open_to_all: Services) -> None:
    requests = Requests(open_to_all, name)
    text, times = ("hello", NORMAL) if size == "normal" else (requests.largest, LARGEST)
    accepted, forged, unsigned = list[float](), list[float](), list[float]()
    for _ in range(times):
        accepted.append(requests.cost_s(requests.signed(text), is_accepted=True))
        forged.append(requests.cost_s(requests.forged(text), is_accepted=False))
        unsigned.append(requests.cost_s(requests.unsigned(text), is_accepted=False))
    assert median(forged) < AT_MOST * median(accepted)
    assert median(unsigned) < AT_MOST * median(accepted)
