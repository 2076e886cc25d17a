"""Which session was active, who ended it, why was this one opened: one line of the log each, and one number."""

from collections.abc import Callable, Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from onelane import keys
from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.postgres.db import Database
from onelane.telemetry.counters import counters, numbers_in
from onelane.telemetry.log import merge_names
from onelane.telemetry.numbers import SESSIONS_ENDED, SESSIONS_OPENED
from tests.conftest import deliver, eventually
from tests.rows import Rows

MORNING = datetime(2026, 1, 16, 9, 0, tzinfo=UTC)
LATER = MORNING + timedelta(hours=8)
RunWorker = Callable[..., Any]
Lines = list[MutableMapping[str, Any]]


@pytest.fixture
def at(settings: Settings, services: Services) -> Iterator[Callable[[datetime], Services]]:
    """Open services at a time of our choice."""
    opened: list[Services] = []

    def at(moment: datetime) -> Services:
        opened.append(open_services(settings, now=lambda: moment))
        return opened[-1]

    yield at
    for one in opened:
        one.close()


def accept(services: Services, text: str = "hello", nr: int = 1) -> Any:
    return deliver(services, [Delivery(senders=("alice",), external_id=f"m{nr}", text=text)])[0]


def numbers_of(services: Services) -> dict[str, int]:
    fields: Any = services.lanes.client.hgetall(keys.NUMBERS)
    return numbers_in(fields)


def of_sessions(lines: Lines) -> Lines:
    """Leave out what a thread that an earlier test left hanging may log by now."""
    return [line for line in lines if line["event"].startswith("session_")]


def names(lines: Lines) -> list[str]:
    return [f"{line['event']} {line.get('because') or line.get('reason')}" for line in of_sessions(lines)]


def test_a_timeout_logs_which_session_ended_and_why_the_next_was_opened(rows: Rows, at: Any, log_lines: Lines) -> None:
    user = accept(at(MORNING)).user_id
    first = rows.session_of(user)
    rows.settle(user, 1)
    accept(at(LATER), nr=2)
    second = rows.session_of(user)
    assert names(log_lines) == ["session_opened first", "session_ended timeout", "session_opened timeout"]
    _, ended, opened = of_sessions(log_lines)
    assert ended["session_id"] == opened["previous_session_id"] == str(first)
    assert opened["session_id"] == str(second) != str(first)
    assert ended["user_id"] == opened["user_id"] == str(user)
    assert ended["ended_at"].startswith("2026-01-16T16:00:00")


def test_asking_again_logs_nothing(rows: Rows, at: Any, log_lines: Lines) -> None:
    user = accept(at(MORNING)).user_id
    for _ in range(3):
        rows.session_of(user)
    assert names(log_lines) == ["session_opened first"]


def test_a_command_logs_its_reason(rows: Rows, at: Any, log_lines: Lines) -> None:
    user = accept(at(MORNING)).user_id
    rows.session_of(user)
    rows.settle(user, 1)
    assert at(MORNING).sessions.end(user) == "operator"
    assert names(log_lines)[-1] == "session_ended operator"


def test_the_sweep_logs_the_policys_reason(rows: Rows, at: Any, log_lines: Lines) -> None:
    user = accept(at(MORNING)).user_id
    rows.session_of(user)
    rows.settle(user, 1)
    assert at(LATER).sessions.sweep().ended == 1
    assert names(log_lines)[-1] == "session_ended timeout"


def test_a_worker_logs_too_and_counts(
    rows: Rows, services: Services, settings: Settings, run_worker: RunWorker
) -> None:
    counters.take()
    with capture_logs([merge_names]) as logs, run_worker(settings):
        accept(services)
        accept(services, "/new", 2)
        accept(services, nr=3)
        eventually(lambda: rows.waiting() == 0)
    services.upload.flush()
    numbers = numbers_of(services)
    assert {k: v for k, v in SESSIONS_OPENED.read(numbers).items() if v} == {"first": 1, "user_request": 1}
    assert {k: v for k, v in SESSIONS_ENDED.read(numbers).items() if v} == {"user_request": 1}
    lines = [line for line in logs if line["event"].startswith("session_")]
    assert [line["event"] for line in lines] == ["session_opened", "session_ended", "session_opened"]
    turns = [line for line in logs if line["event"] == "turn_ended"]
    assert turns[0]["session_id"] == turns[1]["session_id"] == lines[1]["session_id"]
    assert turns[2]["session_id"] == lines[2]["session_id"]


def test_what_did_not_happen_is_not_noticed(services: Services, settings: Settings) -> None:
    noticed: list[str] = []
    database = Database(
        settings.database_url, pooler=settings.pg_pooler, on_notice=lambda name, _: noticed.append(name)
    )
    user = accept(services).user_id
    with pytest.raises(Exception, match="division by zero"):
        database.rows("SELECT 1 / (CASE WHEN get_or_create_session(%s) IS NULL THEN 1 ELSE 0 END)", (user,))
    assert noticed == []
    database.rows("DO $$ BEGIN RAISE NOTICE 'not ours'; END $$")
    assert noticed == []
    database.close()
