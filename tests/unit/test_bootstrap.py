"""Wiring: nothing connects before it is used, and a channel that cannot work stops every process."""

import socket

import pytest

from onelane.bootstrap import open_services, open_worker
from onelane.config import Channel, Settings
from onelane.errors import ConfigError


def test_nothing_connects_before_it_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        settings = Settings(database_url=f"postgresql://127.0.0.1:{port}/d", redis_url=f"redis://127.0.0.1:{port}")
        open_services(settings).close()
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("opened", [open_services, open_worker])
def test_a_channel_whose_provider_is_unknown_stops_the_start(opened: object) -> None:
    settings = Settings(
        database_url="postgresql://127.0.0.1:1/d",
        redis_url="redis://127.0.0.1:1",
        channels={"demo": Channel(provider="carrier-pigeon")},
    )
    assert callable(opened)
    with pytest.raises(ConfigError, match=r"^CHANNELS\.demo\.provider: must be 'demo' or 'meta' or "):
        opened(settings)
