"""What `onelane send` plays: each provider verifies it and understands it, or says what it never sends."""

import click
import pytest

from onelane.channels import Inbound
from onelane.deliveries import Delivery, IdentityChange, Item, Quarantined, Status
from onelane.dev.played import Act, rounds, understood
from onelane.testing.conformance.case import URL
from tests.payloads import ON_THE_NET, channel_of

WHERE = (48.5, 2.25)
REPLY = "0192d3a4-0000-7000-8000-000000000001"


def played(provider: str, act: Act) -> list[list[Item]]:
    """Return the items of each round, as the service will understand them."""
    adapter, _ = channel_of(provider)
    found = []
    for requests in rounds(act, adapter, URL):
        for signed in requests:
            headers = {name.lower(): value for name, value in signed.headers.items()}
            content_type = headers.get("content-type", "").partition(";")[0].lower()
            adapter.verify(Inbound(URL + signed.query, headers, content_type, signed.body))
        found.append([item for signed in requests for item in understood(adapter, URL, signed).items])
    assert not [item for items in found for item in items if isinstance(item, Quarantined)]
    return found


def of_alice(provider: str, item: Item) -> bool:
    persona = channel_of(provider)[0].persona("alice")
    return isinstance(item, Delivery) and (item.conversation or item.senders) == (
        persona.conversation or persona.senders
    )


@pytest.mark.parametrize("provider", ON_THE_NET)
def test_somebody_writes_presses_and_sends_pictures_and_is_always_the_same(provider: str) -> None:
    [[text]] = played(provider, Act("alice", "hello"))
    [[button]] = played(provider, Act("alice", "Yes", button="yes"))
    pictures = [item for items in played(provider, Act("alice", "look", album=3)) for item in items]
    [many] = played(provider, Act("alice", "quick", count=3))
    assert isinstance(text, Delivery)
    assert isinstance(button, Delivery)
    assert (text.text, button.button) == ("hello", "yes")
    assert all(of_alice(provider, item) for item in (text, button, *pictures, *many))
    assert sum(len(item.attachments) for item in pictures if isinstance(item, Delivery)) == 3
    assert [item.text for item in many if isinstance(item, Delivery)] == ["quick 1", "quick 2", "quick 3"]
    assert channel_of(provider)[0].persona("alice") != channel_of(provider)[0].persona("bob")


@pytest.mark.parametrize("provider", [name for name in ON_THE_NET if name != "slack"])
def test_a_place_comes_with_its_degrees(provider: str) -> None:
    [[place]] = played(provider, Act("alice", location=WHERE))
    assert isinstance(place, Delivery)
    assert (place.parts["location"]["latitude"], place.parts["location"]["longitude"]) == WHERE


@pytest.mark.parametrize("provider", ["meta", "standard"])
def test_another_id_comes_before_the_text_under_it(provider: str) -> None:
    [[change], [text]] = played(provider, Act("alice", "still me", then_new_id=True))
    assert isinstance(change, IdentityChange)
    assert isinstance(text, Delivery)
    assert text.senders == change.adds
    assert set(text.senders).isdisjoint(change.senders)


@pytest.mark.parametrize("provider", ["meta", "standard", "twilio"])
def test_a_status_has_the_key_of_its_reply(provider: str) -> None:
    [[status]] = played(provider, Act("alice", status="delivered", reply=REPLY))
    assert isinstance(status, Status)
    assert (status.state, str(status.key)) == ("delivered", REPLY)


@pytest.mark.parametrize("provider", ["meta", "slack", "standard", "telegram"])
def test_a_reaction_and_an_edit_name_the_message_that_they_are_about(provider: str) -> None:
    [[text]] = played(provider, Act("alice", "helo", message_id="m1"))
    assert isinstance(text, Delivery)
    for act in (Act("alice", "hello", edit=text.external_id), Act("alice", react=("👍", text.external_id))):
        [[event]] = played(provider, act)
        assert isinstance(event, Delivery)
        assert event.event == ("edited" if act.edit else "reaction")
        assert event.quoted == text.external_id


@pytest.mark.parametrize(
    ("provider", "act"),
    [
        ("twilio", Act("alice", then_new_id=True)),
        ("twilio", Act("alice", "x", edit="m1")),
        ("twilio", Act("alice", react=("👍", "m1"))),
        ("telegram", Act("alice", then_new_id=True)),
        ("telegram", Act("alice", delete="m1")),
        ("telegram", Act("alice", status="read", reply="m1")),
        ("slack", Act("alice", then_new_id=True)),
        ("slack", Act("alice", location=WHERE)),
        ("slack", Act("alice", status="read", reply="m1")),
        ("standard", Act("alice", status="read")),
        ("standard", Act("alice", message_id="two words")),
    ],
    ids=str,
)
def test_what_a_provider_never_sends_is_said(provider: str, act: Act) -> None:
    with pytest.raises(click.ClickException):
        played(provider, act)
