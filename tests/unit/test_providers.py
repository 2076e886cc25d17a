"""The registry of providers: which settings it takes, and how it refuses others."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from onelane.channels import PROVIDERS, provider_of, providers
from onelane.channels.normalizing import normalizers
from onelane.config import Channel, Settings
from onelane.errors import ConfigError
from onelane.turns.loading import load_bots
from tests.payloads import ON_THE_NET

EXAMPLE = Path(__file__).parents[2] / ".env.example"
SECRET = "whsec_aHVudGVyMiBhbmQgaGlzIGZyaWVuZHMh"
GOOD = {"provider": "standard", "secrets": [SECRET]}

IMPOSSIBLE = [
    ({"provider": SECRET}, f"CHANNELS.demo.provider: must be {' or '.join(map(repr, sorted(PROVIDERS)))}"),
    ({"secrets": SECRET}, "CHANNELS.demo.secrets: must be a JSON list"),
    ({"secrets": []}, "CHANNELS.demo.secrets: must not be empty"),
    ({"secrets": [SECRET] * 9}, "CHANNELS.demo.secrets: must have at most 8 entries"),
    ({"secrets": [[SECRET]]}, "CHANNELS.demo.secrets.0: must be a valid string"),
    ({"secrets": [SECRET, f"v1,{SECRET}"]}, "CHANNELS.demo.secrets.1: must begin with whsec_, without v1, before it"),
    ({"secrets": [f"whpk_{SECRET}"]}, "CHANNELS.demo.secrets.0: must be a whsec_ secret"),
    ({"secrets": [f"{SECRET}%"]}, "CHANNELS.demo.secrets.0: must be base64"),
    ({"secrets": [f"whsec_{'_-' * 20}"]}, "CHANNELS.demo.secrets.0: must be base64"),
    ({"secrets": ["whsec_aHVudGVyMg=="]}, "CHANNELS.demo.secrets.0: must be base64 of at least 16 bytes"),
    *(
        ({"provider": provider, "secrets": [SECRET, wrong]}, f"CHANNELS.demo.secrets.1: {why}")
        for provider in PROVIDERS
        for wrong, why in (
            ("", "must be visible ASCII characters, without blanks and line ends"),
            (f"{SECRET}\n", "must be visible ASCII characters, without blanks and line ends"),
            (f"{SECRET[:20]} {SECRET[20:]}", "must be visible ASCII characters, without blanks and line ends"),
            (f"{SECRET}é", "must be visible ASCII characters, without blanks and line ends"),
            ("x", "must be at least 16 characters"),
        )
    ),
    *(
        ({"provider": "telegram", "secrets": ["a" * 16], **wrong}, f"CHANNELS.demo.{why}")
        for wrong, why in (
            ({"secrets": ["a" * 15 + "+"]}, "secrets.0: must be at most 256 of A-Z a-z 0-9 _ and -"),
            ({"secrets": ["a" * 257]}, "secrets.0: must be at most 256 of A-Z a-z 0-9 _ and -"),
            ({"bot_token": "no-token-of-a-bot-at-all"}, "bot_token: must be a bot's token, as BotFather gives it"),
            ({"bot_token": "replace this"}, "bot_token: is the example's own"),
            ({"bot_username": "two words"}, "bot_username: "),
            ({"base_url": "ftp://api.telegram.org"}, "base_url: must be http:// or https://, a host"),
            ({"base_url": "https://user:word@api.telegram.org"}, "base_url: must be http:// or https://, a host"),
        )
    ),
    ({"idle_timout_s": SECRET}, "CHANNELS.demo.idle_timout_s: is unknown, see .env.example"),
]


def test_the_secrets_of_the_example_are_refused() -> None:
    [line] = [line for line in EXAMPLE.read_text().splitlines() if line.startswith("CHANNELS=")]
    channels = json.loads("".join(shlex.split(line.removeprefix("CHANNELS="))))
    assert {channel["provider"] for channel in channels.values()} == set(ON_THE_NET)
    for channel in channels.values():
        with pytest.raises(ConfigError, match=r"^secrets\.0: is the example's own"):
            provider_of(Channel(**channel))


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


@pytest.mark.parametrize(
    ("source", "place"), [("CHANNELS", "CHANNELS.demo"), ("CHANNELS_FILE", "CHANNELS_FILE.demo"), ("CHANNEL_DEMO",) * 2]
)
def test_what_is_wrong_with_a_channel_is_named_where_its_operator_wrote_it(
    source: str, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = {**GOOD, "secrets": [], "handler": "nobodys:handle", "normalize_sender": "nobodys:spell"}
    text = json.dumps(wrong if source == "CHANNEL_DEMO" else {"demo": wrong})
    (tmp_path / "channels.json").write_text(text)
    for name in ("CHANNELS", "CHANNELS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/d")
    monkeypatch.setenv("REDIS_URL", "redis://h")
    monkeypatch.setenv(source, str(tmp_path / "channels.json") if source == "CHANNELS_FILE" else text)
    settings = Settings.from_environment()
    with pytest.raises(ConfigError, match=rf"^{place}\.secrets: must not be empty"):
        providers(settings.channels)
    with pytest.raises(ConfigError, match=rf"^{place}\.normalize_sender: "):
        normalizers(settings.channels)
    with pytest.raises(ConfigError, match=rf"^{place}\.handler: "):
        load_bots(settings)
    assert [policy.place for policy in settings.policies] == [place]
