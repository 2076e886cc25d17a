"""What is wrong with a channel's set-up is explained, without a secret."""

from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from onelane.config import Channel, Settings
from onelane.dev.embedded.redis import free_port
from onelane.doctor.channel_setup import examine_channel, same_address
from onelane.doctor.finding import Deployment, Health
from onelane.inbox.unsigned import Refusal

SECRET = "a-secret-of-the-provider"
DEMO_SECRET = "whsec_" + b64encode(b"0123456789abcdef01234567").decode()
TWILIO = Channel(provider="twilio", secrets=[SECRET], public_url="https://bot.example.com/chat")
EXPECTED = "https://bot.example.com/chat/webhooks/support"


@pytest.mark.parametrize(
    ("called", "wrong"),
    [
        ("http://bot.example.com/chat/webhooks/support", ("scheme: http, expected https", "port: 80, expected 443")),
        ("https://www.example.com/chat/webhooks/support", ("host: www.example.com, expected bot.example.com",)),
        ("https://bot.example.com:8443/chat/webhooks/support", ("port: 8443, expected 443",)),
        ("https://bot.example.com/webhooks/support", ("path: /webhooks/support, expected /chat/webhooks/support",)),
    ],
)
def test_where_two_addresses_differ_is_named(called: str, wrong: tuple[str, ...]) -> None:
    found = same_address("support", TWILIO, called)
    assert found.health is Health.FAILED
    assert found.details == wrong
    assert called in found.found
    assert EXPECTED in found.found
    assert SECRET not in str(found)


@pytest.mark.parametrize("called", [EXPECTED, f"{EXPECTED}?x=1", EXPECTED.replace(".com/", ".com:443/")])
def test_the_same_address_in_another_spelling_is_right(called: str) -> None:
    assert same_address("support", TWILIO, called).health is Health.OK


@pytest.mark.parametrize(
    "called", ["bot.example.com/webhooks/support", "https://b.example:x/", "https://b.example:99999/", "https://[", ""]
)
def test_what_is_no_address_is_named_as_such(called: str) -> None:
    found = same_address("support", TWILIO, called)
    assert (found.health, found.found) == (Health.FAILED, "--called is no address")
    assert "https://…" in found.todo


NOWHERE = f"http://127.0.0.1:{free_port()}"
SENDS = {"account_sid": f"AC{'0' * 32}", "from_number": "+15550100", "base_url": NOWHERE, "messaging_url": NOWHERE}
REFUSED = Refusal(at=datetime(2031, 3, 29, 12, tzinfo=UTC), reason="it is signed for https://other/", address=EXPECTED)
FINDINGS: dict[str, tuple[str, dict[str, Any], Health, tuple[str, ...]]] = {
    "the address": (
        "address",
        {"public_url": "https://b.example/"},
        Health.OK,
        ("https://b.example/webhooks/support",),
    ),
    "an address that only the provider knows": (
        *("address", {}, Health.WARNING),
        ("https://<your host>/webhooks/support", "signs that address", "set CHANNELS.support.public_url"),
    ),
    "an address that nobody signs": (
        "address",
        {"provider": "demo", "secrets": [DEMO_SECRET]},
        Health.OK,
        ("https://<your host>/webhooks/support",),
    ),
    "an address without TLS": (
        *("address", {"public_url": "http://b.example"}, Health.WARNING),
        ("http://b.example/webhooks/support", "https:// only"),
    ),
    "no way to send": ("sending", {}, Health.WARNING, ("no way to send", "withheld", "docs/CHANNELS.md")),
    "a way to send": ("sending", SENDS, Health.OK, ("a way to send",)),
    "a provider that cannot be reached": (
        "provider",
        SENDS,
        Health.FAILED,
        (f"no connection to {NOWHERE}", "cannot send"),
    ),
}


def examined(channel: Channel, refusal: Refusal | None = None) -> Any:
    settings = Settings(database_url="postgresql://h/d", redis_url="redis://h", channels={"support": channel})
    deployment = Deployment(settings, cast(Any, None), cast(Any, None))
    with ThreadPoolExecutor(1) as apart:  # the browser's tests keep a loop of their own running in the main thread
        return apart.submit(examine_channel, deployment, "support", refusal=refusal).result()


@pytest.mark.parametrize(("part", "given", "health", "said"), FINDINGS.values(), ids=FINDINGS)
def test_each_finding_has_its_facts_and_what_to_do_and_no_secret(
    part: str, given: dict[str, Any], health: Health, said: tuple[str, ...]
) -> None:
    found = examined(Channel(**{"provider": "twilio", "secrets": [SECRET], **given}))
    assert found[part].health is health
    assert all(one in str(found[part]) for one in said), found[part]
    assert bool(found[part].todo) is (health is not Health.OK)
    assert not any(secret in str(found) for secret in (SECRET, DEMO_SECRET))


def test_the_newest_refusal_is_shown_with_what_was_verified() -> None:
    assert examined(TWILIO)["signature"].health is Health.OK
    found = examined(TWILIO, REFUSED)["signature"]
    assert (found.health, found.details) == (Health.WARNING, (f"verified: {EXPECTED}",))
    assert "2031-03-29 12:00:00 UTC: it is signed for https://other/" in found.found
