"""In a list that many share, one user's trouble delays and fails nobody else: for turns and for sends."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import psycopg
import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.embedded import EmbeddedPostgres
from onelane.errors import OnelaneError
from onelane.gathering import Gatherer
from onelane.postgres import connection
from onelane.postgres.db import Database
from tests.calls import Calls, Item, delivery, lease, sent, settlement
from tests.conftest import DEADLINE_S
from tests.proxy import Proxy
from tests.rows import Rows

SIXTEEN, BAD = 16, 5
BAD_USER = f"user {BAD}"
STATEMENT_MAX_MS = 700
OTHERS_WAIT_MAX_S = 5
"""Twice a statement time-out and much more: less than a pool or a deadline would make them wait."""
GOOD = {
    "accept": {"accepted"},
    "begin_turns": {"turn"},
    "settle_turns": {"committed"},
    "begin_sends": {"send"},
    "settle_sends": {"settled"},
}


@pytest.fixture
def database(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Connect with a statement_timeout that a test can wait for."""
    monkeypatch.setitem(connection.SETTINGS, "statement_timeout", f"{STATEMENT_MAX_MS}ms")
    database = Database(settings.database_url)
    yield database
    database.close()


@contextmanager
def row_locked(services: Services, settings: Settings) -> Iterator[None]:
    """Hold the user's row, as another transaction may for long."""
    with psycopg.connect(settings.database_url) as other:
        other.execute("SELECT FROM users WHERE sender = %s FOR UPDATE", (BAD_USER,))
        yield


@contextmanager
def lane_locked(services: Services, settings: Settings) -> Iterator[None]:
    """Hold the row of the user's out lane."""
    services.database.rows("INSERT INTO out_lanes SELECT id FROM users ON CONFLICT DO NOTHING")
    with psycopg.connect(settings.database_url) as other:
        other.execute(
            "SELECT FROM out_lanes WHERE user_id = (SELECT id FROM users WHERE sender = %s) FOR UPDATE", (BAD_USER,)
        )
        yield


@contextmanager
def writes_slow(services: Services, settings: Settings) -> Iterator[None]:
    """Let every write of the user's row take longer than a statement may."""
    rows = services.database.rows
    rows("CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END'")
    rows(
        "CREATE TRIGGER sleep BEFORE UPDATE ON users FOR EACH ROW"
        f" WHEN (NEW.sender = '{BAD_USER}') EXECUTE FUNCTION sleep()"
    )
    try:
        yield
    finally:
        rows("DROP FUNCTION sleep() CASCADE")


def changed(query: str) -> Callable[[Services, Settings], AbstractContextManager[None]]:
    """Change what is stored of the user."""

    def change(services: Services, _settings: Settings) -> AbstractContextManager[None]:
        services.database.rows(query, (BAD_USER,))
        return nullcontext()

    return change


def nothing(_services: Services, _settings: Settings) -> AbstractContextManager[None]:
    return nullcontext()


NUL = "a\0b"
FENCE = "UPDATE users SET fence = 9 WHERE sender = %s"
LANE_FENCE = "UPDATE out_lanes SET fence = 9 WHERE user_id = (SELECT id FROM users WHERE sender = %s)"
PAUSE = "SELECT pause_user(id) FROM users WHERE sender = %s"
Bend = Callable[[Item], Item]
TROUBLES: list[tuple[str, str, Callable[..., Any], Bend, set[str]]] = [
    ("accept", "a locked row", row_locked, dict, {"skipped"}),
    ("accept", "a refusal", nothing, lambda one: {**one, "kind": "?"}, {"23514"}),
    ("accept", "what cannot be read", nothing, lambda one: {**one, "text": NUL}, {"22P05"}),
    ("accept", "a full backlog", nothing, lambda one: {**one, "backlog_max": 1}, {"full"}),
    ("accept", "a statement time-out", writes_slow, dict, {"57014"}),
    ("begin_turns", "a locked row", row_locked, lambda one: {**one, "taken_over": True}, {"55P03"}),
    ("begin_turns", "a refusal", nothing, lambda one: {**one, "fence": "one"}, {"22P02"}),
    ("begin_turns", "what cannot be read", nothing, lambda one: {**one, "hint": NUL}, {"22P05"}),
    ("begin_turns", "a newer fence", changed(FENCE), dict, {"fenced"}),
    ("begin_turns", "a pause", changed(PAUSE), dict, {"paused"}),
    ("begin_turns", "a statement time-out", writes_slow, lambda one: {**one, "taken_over": True}, {"57014"}),
    ("settle_turns", "a locked row", row_locked, dict, {"55P03"}),
    ("settle_turns", "a refusal", nothing, lambda one: {**one, "effects": {"user_state": [1]}}, {"23514"}),
    ("settle_turns", "what cannot be read", nothing, lambda one: {**one, "effects": {"end": NUL}}, {"22P05"}),
    ("settle_turns", "a newer fence", changed(FENCE), dict, {"fenced"}),
    ("settle_turns", "a pause", changed(PAUSE), dict, {"committed"}),
    ("settle_turns", "a statement time-out", writes_slow, dict, {"57014"}),
    ("begin_sends", "a locked row", lane_locked, dict, {"skipped"}),
    ("begin_sends", "a user who is locked", row_locked, dict, {"send"}),
    ("begin_sends", "a refusal", nothing, lambda one: {**one, "fence": "one"}, {"22P02"}),
    ("begin_sends", "what cannot be read", nothing, lambda one: {**one, "token": NUL}, {"22P05"}),
    ("settle_sends", "a locked row", lane_locked, dict, {"skipped"}),
    ("settle_sends", "a user who is locked", row_locked, dict, {"settled"}),
    ("settle_sends", "a refusal", nothing, lambda one: {**one, "outcome": "give_up", "attempt": "one"}, {"22P02"}),
    ("settle_sends", "what cannot be read", nothing, lambda one: {**one, "provider_id": NUL}, {"22P05"}),
    ("settle_sends", "a newer fence", changed(LANE_FENCE), lambda one: {**one, "outcome": "give_up"}, {"fenced"}),
]


def items_of(function: str, services: Services, users_count: int = SIXTEEN) -> list[Item]:
    """Make an item of each of many users, each of whom has a message waiting."""
    calls = Calls(services.database)
    users = calls.accept(*(delivery(f"user {nr}", f"first {nr}") for nr in range(users_count)))
    if function == "accept":
        return [delivery(f"user {nr}", f"second {nr}") for nr in range(users_count)]
    leases = [lease(one["user_id"]) for one in users]
    if function == "begin_turns":
        return leases
    settlements = [settlement(one, goes_on=True, replies=[{"text": "yes"}]) for one in calls.begin(*leases)]
    if function == "settle_turns":
        return settlements
    calls.settle(*settlements)
    if function == "begin_sends":
        return leases
    return [sent(one, goes_on=True) for one in calls.begin_sends(*leases)]


def outcome(future: "Future[Item]") -> str:
    """Word what became of an item: its outcome, or why it was refused."""
    try:
        answer = future.result(DEADLINE_S)
    except OnelaneError as error:
        return str(vars(error)["sqlstate"])
    return str(answer.get("sqlstate") or answer["outcome"])


@pytest.mark.parametrize(
    ("function", "trouble", "bend", "expected"),
    [pytest.param(name, *rest, id=f"{name}: {what}") for name, what, *rest in TROUBLES],
)
def test_one_users_trouble_delays_and_fails_nobody_else_in_its_list(
    services: Services,
    settings: Settings,
    database: Database,
    rows: Rows,
    function: str,
    trouble: Callable[[Services, Settings], AbstractContextManager[None]],
    bend: Bend,
    expected: set[str],
) -> None:
    items = items_of(function, services)
    items[BAD] = bend(items[BAD])
    gatherer = Gatherer(database.asks(function))
    with trouble(services, settings):
        began = time.monotonic()
        futures = gatherer.submit_all([(item, str(nr)) for nr, item in enumerate(items)])
        others = [outcome(future) for nr, future in enumerate(futures) if nr != BAD]
        took_s = time.monotonic() - began
        assert outcome(futures[BAD]) in expected
        gatherer.close()
    assert set(others) == GOOD[function]
    assert took_s < OTHERS_WAIT_MAX_S


REPEATED = {
    "accept": "duplicate",
    "begin_turns": "turn",
    "settle_turns": "already",
    "begin_sends": "send",
    "settle_sends": "already",
}


@pytest.mark.parametrize("size", [1, SIXTEEN])
@pytest.mark.parametrize("function", REPEATED)
@pytest.mark.parametrize("lost", ["reply", "request"])
def test_a_list_whose_reply_is_lost_is_asked_again_and_changes_nothing_more(
    services: Services, postgres: EmbeddedPostgres, rows: Rows, function: str, size: int, lost: str
) -> None:
    items = items_of(function, services, size)
    with Proxy(postgres.url) as proxy:
        database = Database(proxy.url)
        drop = proxy.drop_reply if lost == "reply" else proxy.drop_request
        fault = drop(function.encode(), nth=2)  # the first prepares the statement
        gatherer = Gatherer(database.asks(function))
        futures = gatherer.submit_all([(item, str(nr)) for nr, item in enumerate(items)])
        outcomes = [outcome(future) for future in futures]
        gatherer.close()
        database.close()
    assert fault.struck.is_set()
    assert set(outcomes) == ({REPEATED[function]} if lost == "reply" else GOOD[function])
    assert rows.waiting() == {"accept": 2 * size, "begin_turns": size}.get(function, 0)
    assert rows.answered() == (0 if function in {"accept", "begin_turns"} else size)
    sends = services.database.rows("SELECT requests FROM outbox")
    assert [row.requests for row in sends] == {"settle_turns": [0], "begin_sends": [1]}.get(function, []) * size
