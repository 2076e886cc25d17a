"""A call that ends by its own deadline makes Postgres suspect and no more: whether it is away, a probe finds out."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from onelane.bootstrap import Services
from onelane.bot.reply import Reply
from onelane.config import Settings
from onelane.errors import StoreAway, StoreUnavailable
from onelane.postgres import db
from onelane.postgres.db import Database
from onelane.postgres.faults import LOCK_NOT_AVAILABLE
from tests.conftest import DEADLINE_S, Accept, LogLines, eventually
from tests.proxy import Proxy

SHORT_S = 0.5
HELD = 471
WAIT = f"SELECT pg_advisory_xact_lock({HELD})"
PID = "SELECT pg_backend_pid() AS pid"


@contextmanager
def doing(url: str, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold what some statements lock."""
    with psycopg.connect(url) as other:
        for statement in statements:
            other.execute(statement)
        yield other
        other.rollback()


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    with closing(Database(settings.database_url, pool_max=4)) as database:
        yield database


def probed(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List what comes of probes, as they end."""
    verdicts: list[str] = []
    ask: Callable[[], object] = database.probe

    def probe() -> None:
        try:
            ask()
        except StoreUnavailable as error:
            verdicts.append(type(error).__name__)
            raise
        verdicts.append("well")

    monkeypatch.setattr(database.breaker, "_probe", probe)
    return verdicts


def test_a_short_call_that_waits_for_what_another_holds_is_no_outage(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    verdicts = probed(database, monkeypatch)
    with doing(settings.database_url, WAIT):
        with pytest.raises(StoreUnavailable) as raised:
            database.row(WAIT, within_s=SHORT_S)
        assert not isinstance(raised.value, StoreAway)
        eventually(lambda: verdicts == ["well"])
    assert not database.breaker.is_open
    assert "postgres_away" not in {line["event"] for line in log_lines}


def test_connections_of_others_outlive_a_short_call_that_was_not_answered(
    database: Database, settings: Settings
) -> None:
    with doing(settings.database_url, WAIT):
        with database.transaction() as one, database.transaction() as other, database.transaction() as third:
            before = {connection.info.backend_pid for connection in (one, other, third)}
        with pytest.raises(StoreUnavailable):
            database.row(WAIT, within_s=SHORT_S)
        eventually(lambda: not database.breaker._asking.locked())
        with database.transaction() as connection:
            assert connection.info.backend_pid in before


def test_what_is_said_to_a_user_whose_row_is_locked_keeps_no_other_waiting(
    services: Services, settings: Settings, accept: Accept
) -> None:
    user = accept("alice").user_id
    with doing(settings.database_url, "SELECT FROM users FOR UPDATE"):
        with pytest.raises(StoreUnavailable) as raised:
            services.saying.say("demo", user, Reply(text="hello"))
        assert raised.value.sqlstate == LOCK_NOT_AVAILABLE, "Postgres itself ended it, so nothing of it waits on there"
        assert not services.database.breaker.is_open
        assert services.database.breaker.lets_ask(DEADLINE_S)


def test_a_table_that_somebody_locks_is_no_outage(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe writes, and so waits for that lock."""
    verdicts = probed(database, monkeypatch)
    with doing(settings.database_url, "LOCK TABLE users"):
        database.breaker.suspect()
        eventually(lambda: verdicts == ["StoreUnavailable"])
        assert not database.breaker.is_open


@pytest.mark.slow
def test_a_short_call_that_a_silent_server_does_not_answer_leads_to_a_probe_that_opens(
    settings: Settings,
) -> None:
    with Proxy(settings.database_url) as proxy, closing(Database(proxy.url)) as database:
        assert database.row(PID)
        with proxy.silencing():
            with pytest.raises(StoreUnavailable):
                database.row(PID, within_s=SHORT_S)
            eventually(lambda: database.breaker.is_open)
        eventually(database.breaker.lets_lease)
        assert database.row(PID)


@pytest.mark.timeout(2 * DEADLINE_S)
def test_who_waits_in_vain_to_wait_for_a_lock_leaves_in_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "LOCK_QUEUE_S", 100 * DEADLINE_S)
    while database._lock_waits.acquire(blocking=False):
        pass
    with pytest.raises(StoreUnavailable, match="too many wait"):
        database.ask("note_statuses", [{}], waits=True, within_s=SHORT_S)
