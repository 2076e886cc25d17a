"""The providers whose webhooks Onelane understands: one file each, with its own settings, and one line in PROVIDERS."""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from onelane.channels.demo import Demo
from onelane.channels.meta import Meta
from onelane.channels.provider import Answer, FileRequest, Inbound, Parsed, Persona, Provider, Signed
from onelane.channels.slack import Slack
from onelane.channels.standard import Standard
from onelane.channels.telegram import Telegram
from onelane.channels.twilio import Twilio
from onelane.config import Channel
from onelane.errors import ConfigError
from onelane.problems import first_problem

__all__ = [
    "PROVIDERS",
    "Answer",
    "FileRequest",
    "Inbound",
    "Parsed",
    "Persona",
    "Provider",
    "Signed",
    "provider_of",
    "providers",
]

PROVIDERS: Final[Mapping[str, type[Provider]]] = {
    "demo": Demo,
    "meta": Meta,
    "slack": Slack,
    "standard": Standard,
    "telegram": Telegram,
    "twilio": Twilio,
}
"""The class of each provider, by the name that a channel's `provider` gives."""


def providers(channels: Mapping[str, Channel]) -> dict[str, Provider]:
    """Make every channel's provider; a ConfigError names the channel, the setting, and what is allowed there."""
    made = {}
    for name, channel in channels.items():
        try:
            made[name] = provider_of(channel)
        except ConfigError as error:
            raise ConfigError(f"{channel.place(name)}.{error}") from None
    return made


def provider_of(channel: Channel) -> Provider:
    """Make the provider that `channel` is configured for; a ConfigError names the setting."""
    kind = PROVIDERS.get(channel.provider)
    if kind is None:
        raise ConfigError(f"provider: must be {' or '.join(map(repr, sorted(PROVIDERS)))}")
    try:
        return kind(kind.settings_model.model_validate(channel.own))
    except ValidationError as error:
        raise ConfigError(str(first_problem(error))) from None
