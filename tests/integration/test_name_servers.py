"""A name server that never answers costs a call its deadline and no more, and means that the server is away."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from onelane.addresses import addresses_of
from onelane.config import Settings
from onelane.errors import LanesUnavailable, StoreUnavailable
from onelane.lanes.lanes import Lanes
from onelane.lanes.scripts import connect
from onelane.postgres.db import Database
from tests.conftest import Accept, LogLines, RunWorker, eventually
from tests.proxy import Proxy
from tests.rows import Rows

HOST = "servers.test"
DEADLINE_S = 2.0
SLACK_S = 3.0
"""For a machine that is busy."""
CALLERS = 12


class NameServer:
    """Answers for one host, unless it is silent."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0
        self.addresses = 1
        """How many it answers."""
        self._ask = socket.getaddrinfo

    def getaddrinfo(self, host: Any, *args: Any, **how: Any) -> Any:
        """Stand in for the system's, which nothing but a setting of the machine lets be silent."""
        if host != HOST or how.get("flags") == socket.AI_NUMERICHOST:
            return self._ask(host, *args, **how)
        self.asked += 1
        self.answers.wait()
        return self.addresses * self._ask("127.0.0.1", *args, **how)[:1]


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    yield server
    server.answers.set()


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with Proxy(settings.database_url) as proxy:
        yield proxy


def by_name(url: str) -> str:
    """Let an address on this machine name the host."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.replace("127.0.0.1", HOST)))


def seconds_in_vain(ask: Any, error: type[Exception]) -> float:
    began = time.monotonic()
    with pytest.raises(error):
        ask()
    return time.monotonic() - began


def test_who_asks_for_the_same_host_meanwhile_waits_for_the_same_look_up(name_server: NameServer) -> None:
    name_server.answers.clear()
    with ThreadPoolExecutor(CALLERS) as threads:
        waits = list(
            threads.map(lambda _: seconds_in_vain(lambda: addresses_of(HOST, 0.2), TimeoutError), range(CALLERS))
        )
    assert max(waits) < SLACK_S
    assert name_server.asked == 1
    name_server.answers.set()
    eventually(lambda: addresses_of(HOST, 1) == ["127.0.0.1"])


@pytest.mark.slow
def test_a_call_to_postgres_ends_at_its_deadline_and_the_server_is_away_until_its_name_is_found(
    proxy: Proxy, name_server: NameServer
) -> None:
    database = Database(by_name(proxy.url), deadline_s=DEADLINE_S)
    name_server.answers.clear()
    assert seconds_in_vain(lambda: database.row("SELECT 1"), StoreUnavailable) < DEADLINE_S + SLACK_S
    eventually(lambda: database.breaker.is_open)
    name_server.answers.set()
    eventually(database.breaker.lets_lease)
    assert database.row("SELECT 1")
    database.close()


def test_a_call_to_redis_ends_at_its_time_out(settings: Settings, name_server: NameServer) -> None:
    client = connect(by_name(settings.redis_url), timeout_s=DEADLINE_S, wait_s=1, connections_max=1)
    lanes = Lanes(client)
    name_server.answers.clear()
    assert seconds_in_vain(lanes.probe, LanesUnavailable) < DEADLINE_S + SLACK_S
    name_server.answers.set()
    lanes.probe()
    client.close()


@pytest.mark.slow
def test_all_addresses_of_a_host_share_the_time_of_one_call(name_server: NameServer) -> None:
    name_server.addresses = 8
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = Database(f"postgresql://nobody@{HOST}:{silent.getsockname()[1]}/none", deadline_s=DEADLINE_S)
        assert seconds_in_vain(lambda: database.row("SELECT 1"), StoreUnavailable) < DEADLINE_S + SLACK_S
        eventually(lambda: database.breaker.is_open)
        database.close()


@pytest.mark.slow
def test_a_worker_whose_name_server_falls_silent_charges_nobody_and_goes_on_when_it_answers(
    settings: Settings,
    proxy: Proxy,
    name_server: NameServer,
    accept: Accept,
    run_worker: RunWorker,
    rows: Rows,
    log_lines: LogLines,
) -> None:
    with run_worker(settings.model_copy(update={"database_url": by_name(proxy.url)})):
        accept("alice")
        eventually(lambda: rows.answered() == 1)
        name_server.answers.clear()
        proxy.cut()
        accept("bob")
        eventually(lambda: any(line["event"] == "postgres_away" for line in log_lines))
        name_server.answers.set()
        eventually(lambda: rows.answered() == 2)
    assert rows.ask("SELECT max(attempts) AS most, max(deaths) AS deaths FROM messages") == (0, 0)
