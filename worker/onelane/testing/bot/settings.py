"""The settings of a bot under test: nothing of the environment is read."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from onelane.config import Channel, Settings

CHANNEL: Final = "test"
"""The name of its channel."""
SECRET: Final = "whsec_" + "dGhlIHRlc3QgY2hhbm5lbCdzIG93biBzZWNyZXQ="
NOWHERE: Final = {"database_url": "postgresql://nowhere.invalid/test", "redis_url": "redis://nowhere.invalid"}
TOKEN: Final = "only-tests-have-" + "this"
OWN: Final[Mapping[str, Mapping[str, Any]]] = {
    "demo": {"secrets": (SECRET,)},
    "meta": {"secrets": (TOKEN,), "access_token": TOKEN, "phone_number_id": "100000000000000"},
    "slack": {"secrets": (TOKEN,), "bot_token": f"xoxb-{TOKEN}"},
    "standard": {"secrets": (SECRET,), "reply_url": "https://replies.invalid"},
    "telegram": {"secrets": (TOKEN,), "bot_token": f"100000000:{TOKEN}"},
    "twilio": {"secrets": (TOKEN,), "account_sid": f"AC{0:032x}", "from_number": "+15550000000"},
}
"""What each provider needs to know, with secrets that only tests have."""


class GivenSettings(Settings):
    """What a test gives, and defaults."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is given, and nothing else."""
        return (init_settings,)


def settings_of(channel: Mapping[str, Any], others: Mapping[str, Any]) -> Settings:
    """Make settings with one channel, as CHANNELS has it; what its provider needs is filled in."""
    provider = channel.get("provider", "demo")
    configured = Channel(**{"provider": provider, **OWN.get(provider, {}), **channel})
    return GivenSettings(**{**NOWHERE, "channels": {CHANNEL: configured}, **others})
