"""Channels that send to the fakes of their providers, and what a test asks of both sides."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from onelane.bootstrap import Services
from onelane.channels import providers
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery
from onelane.testing.fake_providers import FakeProviders, fake_providers
from tests.conftest import SECRET, deliver
from tests.rows import Rows

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


class Chat:
    """Users of all channels who write, and what they saw."""

    def __init__(self, services: Services, settings: Settings, fakes: FakeProviders) -> None:
        self.services, self.settings, self.fakes = services, settings, fakes
        self.rows = Rows(services.database)
        self._providers = providers(settings.channels)

    def write(self, channel: str, who: str, *texts: str) -> UUID:
        """Let somebody write, and return the user's id."""
        persona = self._providers[channel].persona(who)
        deliveries = [
            Delivery(
                senders=persona.senders,
                conversation=persona.conversation,
                route=persona.route,
                external_id=uuid4().hex,
                text=text,
            )
            for text in texts
        ]
        return deliver(self.services, deliveries, channel)[-1].user_id

    def states(self, user_id: UUID) -> list[str]:
        return [row.state for row in self.rows.replies(user_id)]

    def seen(self, channel: str) -> dict[str, list[str]]:
        return {user: [one.text for one in said] for user, said in self.fakes.received.by_user(channel).items()}

    @property
    def outbox(self) -> list[str]:
        return [row.state for row in self.services.database.rows("SELECT state FROM outbox")]
