"""Replies on their way to a provider, which is a process of its own: in order, once, and their fate is known."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from onelane.bootstrap import Services, open_services
from onelane.channels import providers
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.sessions import publish_policies
from onelane.testing.fake_providers import FakeProviders
from tests.conftest import RunWorker, eventually
from tests.outbox_fakes import sending_to_fakes
from tests.rows import Rows


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
        return self.services.intake.accept(channel, deliveries)[-1].user_id

    def states(self, user_id: UUID) -> list[str]:
        return [row.state for row in self.rows.replies(user_id)]

    def seen(self, channel: str) -> dict[str, list[str]]:
        return {user: [one.text for one in said] for user, said in self.fakes.received.by_user(channel).items()}

    @property
    def outbox(self) -> list[str]:
        return [row.state for row in self.services.database.rows("SELECT state FROM outbox")]


@pytest.fixture
def chat(services: Services, settings: Settings, tmp_path: Path) -> Iterator[Chat]:
    with sending_to_fakes(settings, tmp_path, "telegram", "standard") as (fakes, pointed):
        publish_policies(services.database, pointed.policies)
        sending = open_services(pointed, redis_timeout_s=3)
        yield Chat(sending, pointed, fakes)
        sending.close()


def test_a_reply_reaches_its_user_and_leaves_the_outbox(chat: Chat, run_worker: RunWorker) -> None:
    with run_worker(chat.settings):
        users = {channel: chat.write(channel, "alice", "one", "two", "three") for channel in ("telegram", "standard")}
        eventually(lambda: all(chat.states(user) == ["sent"] * 3 for user in users.values()))
    for channel in users:
        [texts] = chat.seen(channel).values()
        assert texts == ["one", "two", "three"]
    assert chat.outbox == []
    client = chat.services.out_lanes.client
    assert client.keys("rq:job:*") == [] == client.keys("rq:queue:reply:*")
    assert client.zcard("lanes:out") == 0
