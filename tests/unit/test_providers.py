"""The registry of providers: which settings it takes, and how it refuses others."""

from typing import Any

import pytest

from onelane.channels import PROVIDERS, provider_of, providers
from onelane.config import Channel
from onelane.errors import ConfigError

SECRET = "whsec_aHVudGVyMg=="
GOOD = {"provider": "standard", "secrets": [SECRET]}

IMPOSSIBLE = [
    ({"provider": SECRET}, "CHANNELS.demo.provider: must be 'standard' or 'twilio'"),
    ({"secrets": SECRET}, "CHANNELS.demo.secrets: must be a JSON list"),
    ({"secrets": []}, "CHANNELS.demo.secrets: must not be empty"),
    ({"secrets": [SECRET] * 9}, "CHANNELS.demo.secrets: has too many entries"),
    ({"secrets": [[SECRET]]}, "CHANNELS.demo.secrets.0: must be a valid string"),
    ({"secrets": [SECRET, "whsec_a"]}, "CHANNELS.demo.secrets: must be base64"),
    ({"provider": "twilio", "secrets": [SECRET, " "]}, "CHANNELS.demo.secrets: must not be blank"),
    ({"idle_timout_s": SECRET}, "CHANNELS.demo.idle_timout_s: is unknown, see .env.example"),
]


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_needs_its_own_settings(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^secrets: is missing"):
        provider_of(Channel(provider=name))


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_channel_gets_the_provider_that_it_names(name: str) -> None:
    assert type(provider_of(Channel(**{**GOOD, "provider": name}))) is PROVIDERS[name]


@pytest.mark.parametrize(("changes", "message"), IMPOSSIBLE)
def test_an_impossible_value_is_named_in_one_line_and_never_repeated(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        providers({"demo": Channel(**{**GOOD, **changes})})
    line = str(caught.value)
    assert line.startswith(message)
    assert "\n" not in line
    assert SECRET not in line
    assert caught.value.__suppress_context__
