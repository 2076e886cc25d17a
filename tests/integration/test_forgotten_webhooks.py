"""Who is forgotten is found in quarantine as each provider writes names there: whole, or in parts."""

from collections.abc import Iterator
from typing import Any

import pytest

from onelane.bootstrap import Services, open_services
from onelane.channels.provider import Inbound
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery
from onelane.model import Author
from onelane.operations.forgetting import export, forget
from tests.conftest import deliver
from tests.integration.test_refusal_costs import CHANNELS

URL = "https://bot.example/webhooks/support"
FORM = {"parts": {"view": {"callback_id": "order", "values": {}}}, "button": "order"}
NUMBERS = {"alice": 76543210, "bob": 76543211}


@pytest.fixture
def support(services: Services, settings: Settings, request: pytest.FixtureRequest) -> Iterator[Services]:
    own = CHANNELS.get(request.param, CHANNELS["standard"])
    channels = {"support": Channel(provider=request.param, **own)}
    opened = open_services(settings.model_copy(update={"channels": channels}))
    yield opened
    opened.close()


def webhook(services: Services, who: str, conversation: str | None, **content: Any) -> Inbound:
    """Return a signed webhook of somebody, as it is received."""
    provider, number = services.providers["support"], NUMBERS[who]
    persona = provider.persona(who)
    place = (conversation or "").format(number)
    channel, _, thread = place.partition(":")
    delivery = Delivery(
        senders=persona.senders,
        conversation=place or None,
        author=Author(id=str(number)) if place else None,
        external_id=f"V{number}:1",
        **{
            "text": "hello",
            "route": {"channel": channel, "thread_ts": thread} if place else persona.route,
            **content,
        },
    )
    return provider.sign(URL, delivery).received(URL)


@pytest.mark.parametrize(
    ("support", "conversation", "content"),
    [
        *((name, None, {}) for name in ("demo", "meta", "slack", "standard", "telegram", "twilio")),
        ("meta", "group:G{}g0", {}),
        ("slack", None, {**FORM, "route": None}),
        ("slack", None, {"text": "/order"}),
        ("slack", "C0123456789:17{}.000100", {}),
        ("slack", "C0123456789:17{}.000100", FORM),
        ("telegram", "business:c0nnection:{}", {}),
        ("telegram", "-1001234567890:topic:{}", {}),
        ("telegram", "-1001234567890:direct:{}", {}),
        ("telegram", "-{}", {}),
    ],
    indirect=["support"],
)
def test_a_persons_webhooks_are_exported_and_forgotten_and_anothers_stay(
    support: Services, conversation: str | None, content: dict[str, Any]
) -> None:
    users, bodies = [], []
    for who in NUMBERS:
        request = webhook(support, who, conversation, **content)
        [delivery] = support.providers["support"].parse(request).deliveries
        [accepted] = deliver(support, [delivery], "support")
        support.quarantine.keep("support", request, ["not understood"])
        users.append(accepted.user_id)
        bodies.append(request.body)
    exported = [
        row["body"].encode() for table, row in export(support, users[0], "ann") if table == "quarantined_payloads"
    ]
    assert exported == bodies[:1]
    forgotten = forget(support, users[0], "ann")
    assert forgotten is not None
    assert forgotten.quarantined == 1
    assert [row.body for row in support.database.rows("SELECT body FROM quarantined_payloads")] == bodies[1:]


@pytest.mark.parametrize("support", ["twilio"], indirect=True)
def test_who_is_named_without_the_kind_of_the_address_is_found(support: Services) -> None:
    senders = ("whatsapp:+15550137842", "whatsapp:FR.7f3a91c2")
    [accepted] = deliver(support, [Delivery(senders=senders, external_id="SM1")], "support")
    for who in ("FR.7f3a91c2", "FR.7f3a91c3"):
        body = f"From=whatsapp%3A&ExternalUserId={who}".encode()
        support.quarantine.keep("support", Inbound(URL, {}, "", body), ["From: is missing"])
    forgotten = forget(support, accepted.user_id, "ann")
    assert forgotten is not None
    assert forgotten.quarantined == 1


@pytest.mark.parametrize("support", ["slack"], indirect=True)
def test_a_name_that_lacks_a_part_is_in_nobody_elses_webhook(support: Services) -> None:
    [accepted] = deliver(support, [Delivery(senders=("TABCDEFGH:",), external_id="1")], "support")
    body = b'{"team_id": "TABCDEFGH", "user": {"id": ""}}'
    support.quarantine.keep("support", Inbound(URL, {}, "", body), ["not understood"])
    forgotten = forget(support, accepted.user_id, "ann")
    assert forgotten is not None
    assert forgotten.quarantined == 0
