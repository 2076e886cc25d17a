"""A channel of a running service, as `onelane send` finds and calls it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import click
from pydantic import TypeAdapter

from onelane.channels import Provider, Signed, provider_of
from onelane.config import Channel, Settings
from onelane.deliveries import Item
from onelane.dev.run.data_folder import DEFAULT_CHANNEL, running
from onelane.errors import ConfigError

ANSWER_WITHIN_S = 30


@dataclass(frozen=True)
class Target:
    """A channel of a running service."""

    base_url: str
    name: str
    channel: Channel

    @property
    def webhook(self) -> str:
        """Where its webhooks are posted."""
        return f"{self.base_url}/webhooks/{self.name}"

    @property
    def public_url(self) -> str:
        """Where its provider posts them, which some sign."""
        return f"{(self.channel.public_url or self.base_url).rstrip('/')}/webhooks/{self.name}"

    @cached_property
    def provider(self) -> Provider:
        """Its adapter."""
        return provider_of(self.channel)


def find_target(name: str | None = None, provider: str | None = None) -> Target:
    """Find the service: the stack that `onelane run` started, else what the environment describes.

    Of its channels, the one of that name, else `demo`, else the first; with `provider`, of those of that provider.
    """
    port, channels = _running_stack() or _environment()
    if provider is not None:
        found = {one: channel for one, channel in channels.items() if channel.provider == provider}
        if not found:
            has = ", ".join(sorted({channel.provider for channel in channels.values()})) or "none"
            raise click.ClickException(f"no channel of the provider {provider!r}; configured: {has}")
        channels = found
    name = name or (DEFAULT_CHANNEL if DEFAULT_CHANNEL in channels else next(iter(channels), DEFAULT_CHANNEL))
    if name not in channels:
        raise click.ClickException(f"no channel {name!r}; configured: {', '.join(channels) or 'none'}")
    return Target(f"http://127.0.0.1:{port}", name, channels[name])


def sign(target: Target, item: Item) -> Request:
    """Make the request with which the channel's provider would deliver `item`."""
    return request(target, target.provider.sign(target.public_url, item))


def request(target: Target, signed: Signed) -> Request:
    """Address what was signed."""
    headers = dict(signed.headers)
    return Request(target.webhook + signed.query, signed.body, headers, method="POST")  # noqa: S310 - always http


def call(target: Target, request: Request) -> bytes:
    """Return the body of the service's answer; raise HTTPError for a refusal.

    No proxy of the environment stands between this terminal and its own machine.
    """
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=ANSWER_WITHIN_S) as response:
            body: bytes = response.read()
            return body
    except HTTPError:
        raise
    except (OSError, HTTPException) as error:
        reason = f"nothing answers at {target.base_url} ({error})"
        raise click.ClickException(f"{reason}: is `onelane run` running?") from None


def _running_stack() -> tuple[int, Mapping[str, Channel]] | None:
    environment = running()
    if environment is None:
        return None
    channels = TypeAdapter(dict[str, Channel]).validate_json(environment["CHANNELS"])
    return int(environment["PORT"]), channels


def _environment() -> tuple[int, Mapping[str, Channel]]:
    try:
        settings = Settings.from_environment()
    except ConfigError as error:
        raise click.ClickException(f"no running service found: is `onelane run` running? ({error})") from None
    return settings.port, settings.channels
