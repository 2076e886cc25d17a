"""Connecting to a server that takes long, or falls silent: who waits leaves in time, and what is made is kept."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import psycopg
import pytest

from onelane.config import Settings
from onelane.errors import StoreAway, StoreUnavailable
from onelane.postgres.connection import Connection
from onelane.postgres.db import Database
from onelane.postgres.pool import Pool
from tests.conftest import DEADLINE_S, eventually

SHORT_S = 0.1
GREETING = {
    "server_version": "16.0",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "SQL, DMY",
    "standard_conforming_strings": "on",
    "in_hot_standby": "off",
    "default_transaction_read_only": "off",
}


class Connect:
    """Connects as slowly as a test wants."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.began = 0
        self.goes_on = threading.Event()
        self.error: psycopg.Error | None = None

    def __call__(self, within_s: float, generation: int) -> Connection:
        self.began += 1
        assert self.goes_on.wait(DEADLINE_S)
        if self.error:
            raise self.error
        return Connection.open(self._url, within_s, generation)


@pytest.fixture
def connect(settings: Settings) -> Iterator[Connect]:
    connect = Connect(settings.database_url)
    yield connect
    connect.goes_on.set()


@pytest.mark.timeout(2 * DEADLINE_S)
def test_who_waits_for_a_connection_leaves_in_time_and_the_next_gets_it(connect: Connect) -> None:
    with closing(Pool(connect, 1)) as pool:
        with pytest.raises(StoreUnavailable) as raised, pool.connection(wait_s=SHORT_S, within_s=SHORT_S):
            pass
        assert not isinstance(raised.value, StoreAway)
        with pytest.raises(StoreUnavailable, match="used up"), pool.connection(SHORT_S, SHORT_S):
            pass
        connect.goes_on.set()
        with pool.connection(DEADLINE_S, DEADLINE_S) as connection:
            assert connection.execute("SELECT 1").rowcount == 1
    assert connect.began == 1


@pytest.mark.timeout(2 * DEADLINE_S)
def test_a_connection_that_fails_when_nobody_waits_any_more_gives_its_place_back(connect: Connect) -> None:
    connect.error = psycopg.OperationalError("refused")
    with closing(Pool(connect, 1)) as pool:
        with pytest.raises(StoreUnavailable), pool.connection(SHORT_S, SHORT_S):
            pass
        connect.goes_on.set()
        with pytest.raises(StoreAway), pool.connection(DEADLINE_S, DEADLINE_S):
            pass
        eventually(lambda: pool._places._value == 1)


@pytest.mark.timeout(2 * DEADLINE_S)
def test_a_short_call_that_is_over_before_its_connection_is_made_opens_no_breaker(
    connect: Connect, settings: Settings
) -> None:
    with closing(Database(settings.database_url, pool_max=2)) as database:
        database._pool._connect = connect
        with pytest.raises(StoreUnavailable):
            database.row("SELECT 1", within_s=SHORT_S)
        assert not database.breaker.is_open
        connect.goes_on.set()
        assert database.row("SELECT 1")


@pytest.mark.timeout(DEADLINE_S)
def test_a_server_that_falls_silent_after_its_greeting_ends_the_connection() -> None:
    """Its dates are not the driver's, so it is asked for others, and that was waited for without end."""
    with silent_after_greeting() as url, pytest.raises(psycopg.OperationalError):
        Connection.open(url, SHORT_S, 0)


@contextmanager
def silent_after_greeting() -> Iterator[str]:
    """Be a server that lets everybody in, and then says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_greet, args=(listener,), daemon=True).start()
        yield f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/d?sslmode=disable&gssencmode=disable"


def _greet(listener: socket.socket) -> None:
    with suppress(OSError):
        client, _ = listener.accept()
        with client:
            client.recv(4096)
            parts = [_part(b"S", f"{name}\0{value}\0".encode()) for name, value in GREETING.items()]
            client.sendall(_part(b"R", struct.pack("!i", 0)) + b"".join(parts) + _part(b"Z", b"I"))
            while client.recv(4096):
                pass


def _part(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", 4 + len(content)) + content
