"""Signs of a worker's turns, as a provider gets them."""

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from onelane.bootstrap import Services, open_services
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery
from onelane.testing.fake_providers import fake_providers
from tests.conftest import RunWorker, deliver, eventually
from tests.rows import Rows

DONE = "SELECT FROM users WHERE id = %s AND waiting = 0"
BOT = Channel(provider="telegram", secrets=("a" * 16,), bot_token=f"123456:{'0' * 35}")


@pytest.mark.slow
def test_a_worker_of_turns_alone_shows_that_its_handler_works_and_nothing_where_none_does(
    services: Services, settings: Settings, rows: Rows, run_worker: RunWorker, tmp_path: Path
) -> None:
    with fake_providers({"bot": BOT}, tmp_path / "journal.jsonl") as fakes:
        channels = {**settings.channels, "bot": fakes.pointed("bot", BOT)}
        settings = settings.model_copy(
            update={"channels": channels, "handler": "tests.bots:handle", "worker_kinds": ("in",)}
        )

        def send(chat: int, text: str) -> UUID:
            delivery = Delivery(senders=(str(chat),), external_id=uuid4().hex, text=text, route={"chat_id": chat})
            return deliver(web, [delivery], "bot")[0].user_id

        web = open_services(settings)
        with run_worker(settings):
            escalated = send(8, "hello")
            eventually(lambda: rows.texts(escalated) == ["hello"])
            services.sessions.escalate(escalated)
            quiet = [send(8, "anybody?"), send(9, "/new")]
            eventually(lambda: all(services.database.rows(DONE, (user,)) for user in quiet))
            slow = send(7, f"wait {tmp_path / 'go on'}")
            eventually(lambda: [line["user"] for line in fakes.received.lines("shown") if line["user"] == "7"])
            (tmp_path / "go on").touch()
            eventually(lambda: rows.texts(slow))
        web.close()
        assert sorted(line["user"] for line in fakes.received.lines("shown")) == ["7", "8"]
