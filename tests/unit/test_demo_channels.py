"""What the environment changes of the channels that `onelane run` has by itself."""

import pytest

from onelane.dev.run.demo import demo_channels
from onelane.errors import ConfigError
from onelane.model import JsonObject

OURS: dict[str, JsonObject] = {
    "demo": {"provider": "demo", "secrets": ["one"]},
    "telegram": {"provider": "telegram", "secrets": ["two"]},
}


def test_a_variable_without_a_provider_changes_ours_and_is_used_up() -> None:
    environment = {"CHANNEL_DEMO": '{"on_busy": "collect"}', "HANDLER": "mybot:handle"}
    assert demo_channels(OURS, environment) == {**OURS, "demo": {**OURS["demo"], "on_busy": "collect"}}
    assert environment == {"HANDLER": "mybot:handle"}


def test_a_channel_of_ones_own_stands_in_place_of_ours_and_others_beside_them() -> None:
    environment = {
        "CHANNEL_TELEGRAM": '{"provider": "telegram", "secrets": ["mine"]}',
        "CHANNEL_SUPPORT": '{"provider": "twilio", "secrets": ["mine"]}',
    }
    assert demo_channels(OURS, environment) == {"demo": OURS["demo"]}
    assert set(environment) == {"CHANNEL_TELEGRAM", "CHANNEL_SUPPORT"}


def test_what_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^CHANNEL_DEMO: "):
        demo_channels(OURS, {"CHANNEL_DEMO": "{"})
