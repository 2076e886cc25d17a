"""What is wrong with a channel's set-up is explained, without a secret."""

import pytest

from onelane.config import Channel
from onelane.doctor.channel_setup import address_of, same_address, way_to_send
from onelane.doctor.finding import Health

SECRET = "a-secret-of-the-provider"
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


def test_an_address_that_is_signed_must_be_known() -> None:
    unknown = TWILIO.model_copy(update={"public_url": None})
    assert "CHANNELS.support.public_url" in address_of("support", unknown).todo
    assert EXPECTED in address_of("support", TWILIO).found
    assert not address_of("support", TWILIO).todo


def test_a_channel_that_cannot_send_is_named() -> None:
    assert "no way to send" in way_to_send(TWILIO).found
