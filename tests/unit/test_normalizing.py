"""A channel's `normalize_sender`: applied to every identifier, and no reason for a 500."""

from typing import Any

import pytest

from onelane.channels.normalizing import Normalizer, normalizers
from onelane.config import Channel
from onelane.deliveries import Delivery, IdentityChange, Ignored, Quarantined, Status
from onelane.errors import ConfigError

SENDER = "+5511987654321"


def without_nine(identifier: str) -> str:
    """Spell a Brazilian mobile number as it was before it had a ninth digit."""
    is_long = identifier.startswith("+55") and len(identifier) == len(SENDER)
    return identifier[:5] + identifier[6:] if is_long else identifier


def test_every_identifier_of_a_delivery_and_of_an_identity_change_is_spelled_so() -> None:
    spell = Normalizer(without_nine)
    both = Delivery(senders=(SENDER, "+551187654321", "id.1"), conversation=SENDER, external_id="m1", text=SENDER)
    assert spell(both) == both.model_copy(
        update={"senders": ("+551187654321", "id.1"), "conversation": "+551187654321"}
    )
    change = IdentityChange(senders=(SENDER,), adds=("id.2",), drops=(SENDER,), external_id="e1")
    assert spell(change) == change.model_copy(update={"senders": ("+551187654321",), "drops": ("+551187654321",)})


@pytest.mark.parametrize("item", [Status(provider_id="p", state="read"), Ignored("typing"), Quarantined("odd")])
def test_what_names_no_user_stays_as_it_is(item: Any) -> None:
    assert Normalizer(lambda _: None)(item) is item


@pytest.mark.parametrize(
    "answer", [None, 7, b"+1", "", "  ", "a\0", "\ud800", "x" * 257, ValueError(SENDER), SystemError()]
)
def test_a_function_that_raises_or_returns_no_identifier_sends_the_item_into_quarantine(answer: Any) -> None:
    def spell(_: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    spelled = Normalizer(spell)(Delivery(senders=(SENDER,), external_id="m1"))
    assert isinstance(spelled, Quarantined)
    assert spelled.reason.startswith("normalize_sender r")
    assert SENDER not in spelled.reason


def test_each_channels_function_is_loaded_and_one_that_is_not_there_stops_the_start() -> None:
    path = f"{__name__}:without_nine"
    channels = {"demo": Channel(provider="standard"), "phones": Channel(provider="standard", normalize_sender=path)}
    assert list(normalizers(channels)) == ["phones"]
    broken = {"phones": Channel(provider="standard", normalize_sender=f"{__name__}:nothing")}
    with pytest.raises(ConfigError, match=r"^CHANNELS.phones.normalize_sender: .* has no function nothing; it has "):
        normalizers(broken)
