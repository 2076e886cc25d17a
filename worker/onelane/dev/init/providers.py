"""What a bot's author needs to know of each provider: the settings of its channel, and the steps of its set-up."""

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from onelane.model import JsonObject


class Provider(NamedTuple):
    """One way to people: its channel's settings, with examples of its secrets, and how it is set up."""

    channel: JsonObject
    steps: str


PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType(
    {
        "whatsapp": Provider(
            {
                "provider": "meta",
                "secrets": ["replace this by the app secret"],
                "verify_tokens": ["replace this by a password"],
                "access_token": "replace this by the access token",
                "phone_number_id": "100000000000000",
            },
            "In Meta's dashboard, under WhatsApp, Configuration: enter the address and the password, "
            "and subscribe to `messages`.",
        ),
        "twilio": Provider(
            {
                "provider": "twilio",
                "secrets": ["replace this by the auth token"],
                "account_sid": "AC00000000000000000000000000000000",
                "from_number": "+15550000000",
                "public_url": "https://bot.example.com",
            },
            'In Twilio\'s console, under "A message comes in" of the number: enter the address. `public_url` is its '
            "beginning, exactly as Twilio calls it: it is part of what Twilio signs.",
        ),
        "slack": Provider(
            {"provider": "slack", "secrets": ["replace this by the signing secret"], "bot_token": "xoxb-replace-this"},
            "On the app's page, under Event Subscriptions: enter the address, and subscribe to `message.im` and "
            "`app_mention`. The bot needs the scopes `chat:write`, `im:history` and `app_mentions:read`.",
        ),
        "telegram": Provider(
            {
                "provider": "telegram",
                "secrets": ["replace this by a password"],
                "bot_token": "100000000:replace-this-by-the-token",
            },
            "@BotFather gives the token. `onelane run` asks Telegram for messages by itself: it needs no address. "
            "For the deployed bot, call `setWebhook` with the address as `url` and the password as `secret_token`.",
        ),
        "standard": Provider(
            {
                "provider": "standard",
                "secrets": ["replace this by whsec_ and the secret"],
                "reply_url": "https://chat.example.com/replies",
            },
            "Your own chat posts to the address, signed as Standard Webhooks. Make the secret with "
            '`echo "whsec_$(openssl rand -base64 32)"`. Replies are posted to `reply_url`.',
        ),
    }
)


def settings_of(names: Iterable[str]) -> str:
    """Format the channels as lines of an environment file."""
    lines = [f"CHANNEL_{name.upper()}='{json.dumps(PROVIDERS[name].channel)}'" for name in _each(names)]
    return "\n".join(lines) or "# CHANNEL_SUPPORT='{\"provider\": …}'"


def steps_of(names: Iterable[str]) -> str:
    """Format how each provider is set up."""
    return "\n".join(
        f"- **{name}**: the address is `https://<your host>/webhooks/{name}`. {PROVIDERS[name].steps}"
        for name in _each(names) or PROVIDERS
    )


def _each(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
