"""The proxy of the tests itself: what becomes of connections that go silent."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.proxy import Proxy

ANSWERS_S = 5.0
SILENT_S = 0.1


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before a server that repeats what it receives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        with Proxy(f"redis://127.0.0.1:{listener.getsockname()[1]}") as proxy:
            yield proxy


def test_a_connection_that_went_silent_stays_open_for_good_and_a_new_one_passes(proxy: Proxy) -> None:
    with _connected(proxy) as old:
        assert _answer(old) == b"hello"
        proxy.silence()
        assert _answer(old, SILENT_S) is None
        with _connected(proxy) as new:
            assert _answer(new) == b"hello"
        assert _answer(old, SILENT_S) is None


def test_who_connects_while_all_is_silent_stays_connected_to_nothing(proxy: Proxy) -> None:
    with proxy.silencing():
        during = _connected(proxy)
        assert _answer(during, SILENT_S) is None
    with during, _connected(proxy) as after:
        assert _answer(after) == b"hello"
        assert _answer(during, SILENT_S) is None


def _connected(proxy: Proxy) -> socket.socket:
    host, _, port = proxy.url.removeprefix("redis://").partition(":")
    return socket.create_connection((host, int(port)), timeout=ANSWERS_S)


def _answer(client: socket.socket, within_s: float = ANSWERS_S) -> bytes | None:
    """Send something and return what comes back; None when nothing does. An end would be an empty answer."""
    client.settimeout(within_s)
    client.sendall(b"hello")
    with suppress(TimeoutError):
        return client.recv(100)
    return None


def _serve(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_repeat, args=(client,), daemon=True).start()


def _repeat(client: socket.socket) -> None:
    with client, suppress(OSError):
        while received := client.recv(100):
            client.sendall(received)
