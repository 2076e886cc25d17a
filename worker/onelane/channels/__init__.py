"""The providers whose webhooks Onelane understands, one file each."""

from collections.abc import Mapping

from onelane.channels.provider import Answer, Inbound, Provider
from onelane.channels.standard import Standard
from onelane.channels.twilio import Twilio
from onelane.config import Channel
from onelane.errors import ConfigError

__all__ = ["Answer", "Inbound", "Provider", "provider_of", "providers"]


def providers(channels: Mapping[str, Channel]) -> dict[str, Provider]:
    """Make every channel's provider; a ConfigError names the channel whose secret is impossible."""
    made = {}
    for name, channel in channels.items():
        try:
            made[name] = provider_of(channel)
        except ConfigError as error:
            raise ConfigError(f"CHANNELS.{name}.{error}") from None
    return made


def provider_of(channel: Channel) -> Provider:
    """Make the provider that `channel` is configured for."""
    secrets = tuple(secret.get_secret_value() for secret in channel.secrets)
    match channel.provider:
        case "standard":
            return Standard(secrets)
        case "twilio":
            return Twilio(secrets)
