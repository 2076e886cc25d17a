"""Connections to Postgres that went silent and are never cut: every wait ends by a clock of ours."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from onelane.config import Settings
from onelane.errors import StoreUnavailable
from onelane.postgres import migrations
from onelane.postgres.db import Database
from tests.conftest import eventually
from tests.proxy import Proxy

CONNECTIONS = 4
DEADLINE_S = 6.0
"""What a first try leaves of it suffices for a new connection on a busy machine."""
PATIENT_S = 20.0
SLACK_S = 3.0
"""For a machine that is busy, and the watchdog's tick."""


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with Proxy(settings.database_url) as proxy:
        yield proxy


@pytest.fixture
def database(proxy: Proxy) -> Iterator[Database]:
    database = Database(proxy.url, pool_max=CONNECTIONS, deadline_s=DEADLINE_S)
    yield database
    database.close()


def _ask_at_once(database: Database, within_s: float = DEADLINE_S) -> list[float]:
    """Ask over all connections at the same time; return how long each answer took."""
    together = Barrier(CONNECTIONS)

    def ask(_nr: int) -> float:
        together.wait()
        began = time.monotonic()
        assert database.rows("SELECT 1 FROM pg_sleep(0.1)", within_s=within_s)
        return time.monotonic() - began

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(ask, range(CONNECTIONS)))


def _answers(database: Database) -> bool:
    try:
        return bool(database.row("SELECT 1"))
    except StoreUnavailable:
        return False


@pytest.mark.timeout(60)
def test_after_one_call_found_silence_no_idle_connection_is_asked(database: Database, proxy: Proxy) -> None:
    _ask_at_once(database)
    proxy.silence()
    began = time.monotonic()
    assert database.row("SELECT 1")
    assert time.monotonic() - began < DEADLINE_S + SLACK_S
    assert max(_ask_at_once(database, PATIENT_S)) < PATIENT_S * 0.6  # as long as a silent link takes at least


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_call_over_a_link_that_stays_silent_ends_at_its_deadline(database: Database, proxy: Proxy) -> None:
    _ask_at_once(database)
    with proxy.silencing():
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            database.row("SELECT 1")
        assert time.monotonic() - began < DEADLINE_S + SLACK_S
    eventually(lambda: _answers(database))


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_transaction_over_a_silent_link_ends_too(database: Database, proxy: Proxy) -> None:
    def read_twice() -> None:
        with database.transaction(DEADLINE_S) as connection:
            connection.execute("SELECT 1")
            proxy.silence()
            connection.execute("SELECT 1")

    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        read_twice()
    assert time.monotonic() - began < DEADLINE_S + SLACK_S


@pytest.mark.timeout(60)
def test_whether_migrations_are_pending_is_asked_with_a_deadline(
    database: Database, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "PENDING_S", 0.5, raising=False)
    assert _answers(database)
    proxy.silence()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        migrations.pending(database)
    assert time.monotonic() - began < 0.5 + SLACK_S
