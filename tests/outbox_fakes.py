"""Channels that send to the fakes of their providers, and what a test asks of both sides."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from onelane.config import Channel, Settings
from onelane.testing.fake_providers import FakeProviders, fake_providers
from tests.conftest import SECRET

KINDS: Final[dict[str, dict[str, Any]]] = {
    "telegram": {"provider": "telegram", "secrets": ["s" * 20], "bot_token": "123456:tokenOfTelegram0123"},
    "slack": {"provider": "slack", "secrets": ["s" * 20], "bot_token": "xoxb-tokenOfSlack0123"},
    "standard": {"provider": "standard", "secrets": [SECRET], "reply_url": "http://provider.invalid/"},
}
"""By the provider's name."""


@contextmanager
def sending_to_fakes(settings: Settings, folder: Path, *kinds: str) -> Iterator[tuple[FakeProviders, Settings]]:
    """Run fakes; yield them, and settings whose channels send to them: each is named as its provider."""
    channels = {kind: Channel(**KINDS[kind]) for kind in kinds}
    with fake_providers(channels, folder / "journal") as fakes:
        pointed = {name: fakes.pointed(name, channel) for name, channel in channels.items()}
        yield fakes, settings.model_copy(update={"channels": {**settings.channels, **pointed}})
