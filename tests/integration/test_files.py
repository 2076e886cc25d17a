"""`turn.fetch` in a worker: sync, async, and in a suspect's child, whose parent fetches."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from onelane.bootstrap import Services
from onelane.channels import PROVIDERS
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery
from onelane.model import Attachment
from tests.conftest import SECRET, RunWorker, deliver, eventually
from tests.file_server import FileServer, WithFiles, serving
from tests.rows import Rows

CHANNELS = {"sync": "tests.fetchers:handle", "async": "tests.fetchers:handle_async"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with serving() as server:
        monkeypatch.setattr(WithFiles, "server", server, raising=False)
        monkeypatch.setitem(PROVIDERS, "with-files", WithFiles)
        yield server


@pytest.fixture
def settings(settings: Settings, server: FileServer) -> Settings:
    channels = {
        name: Channel(provider="with-files", secrets=(SECRET,), handler=path) for name, path in CHANNELS.items()
    }
    return settings.model_copy(update={"channels": channels})


@pytest.mark.parametrize("deaths", [0, 2], ids=["in the worker", "apart"])
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_handler_gets_a_users_file_or_why_it_cannot(
    channel: str,
    deaths: int,
    server: FileServer,
    services: Services,
    settings: Settings,
    rows: Rows,
    run_worker: RunWorker,
) -> None:
    server.has("/about/7", b"/photo")
    server.has("/photo", b"a photo")
    server.has("/about/8", status=410)
    attachments = tuple(Attachment(id=name) for name in ("7", "8"))
    delivery = Delivery(senders=("alice",), external_id=uuid4().hex, attachments=attachments)
    user_id = deliver(services, [delivery], channel)[0].user_id
    services.database.rows("UPDATE inbox SET deaths = %s", (deaths,))
    with run_worker(settings):
        eventually(lambda: rows.texts(user_id))
    assert rows.texts(user_id) == ["a photo (image/png), FileGone: its provider has it no more: 410"]
