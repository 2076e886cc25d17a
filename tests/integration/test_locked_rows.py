"""Somebody holds one user's row for long: that user waits, and nobody else does."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from threading import Event
from uuid import UUID, uuid4

import psycopg
import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.deliveries import Delivery, IdentityChange
from onelane.errors import StoreUnavailable
from onelane.inbox import intake, patience
from onelane.inbox.items import Line
from onelane.model import Lease
from onelane.turns.records import Records
from tests import loops
from tests.conftest import Accept, RunWorker, eventually, stand
from tests.rows import Rows

WEB_THREADS = 4
OTHERS_WAIT_MAX_S = 5.0
LOCKED = 16
"""Half a second each: far more than the list may wait for them in the test."""


@contextmanager
def _held(settings: Settings, users: Iterable[UUID]) -> Iterator[None]:
    """Hold the users' rows, as a transaction of anybody may."""
    with psycopg.connect(settings.database_url) as connection:
        connection.execute("SELECT FROM users WHERE id = ANY(%s) FOR UPDATE", (list(users),))
        yield


def _seconds_to_accept(services: Services, sender: str) -> float | None:
    """Accept one message; return how long that took, or None if Postgres was called away."""
    began = time.monotonic()
    return time.monotonic() - began if stand(services, [_delivery(sender, uuid4().hex)]) else None


def _delivery(sender: str, text: str) -> Delivery:
    return Delivery(senders=(sender,), external_id=f"{sender} {text}", text=text)


def test_intake_of_others_stays_quick_beside_a_locked_user(
    services: Services, settings: Settings, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "ANSWER_MAX_S", OTHERS_WAIT_MAX_S)
    monkeypatch.setattr(patience, "HANGS_S", OTHERS_WAIT_MAX_S)
    locked = accept("locked").user_id
    senders = [sender for nr in range(20) for sender in ("locked", f"a{nr}", f"b{nr}", f"c{nr}")]
    with _held(settings, [locked]), ThreadPoolExecutor(WEB_THREADS) as threads:
        took = list(threads.map(lambda sender: _seconds_to_accept(services, sender), senders))
    others = [seconds for seconds in took if seconds is not None]
    assert len(others) == sum(sender != "locked" for sender in senders)
    assert median(others) < 0.5
    assert max(others) < OTHERS_WAIT_MAX_S
    assert all(seconds is None for sender, seconds in zip(senders, took, strict=True) if sender == "locked")


def test_of_a_list_that_meets_a_locked_user_the_rest_stands_and_no_order_changes(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    locked, free = accept("locked").user_id, accept("free").user_id
    texts = [("locked", "1"), ("free", "1"), ("locked", "2"), ("free", "2")]
    deliveries = [_delivery(sender, text) for sender, text in texts]
    with _held(settings, [locked]):
        assert not stand(services, deliveries)
    assert [row.text for row in rows.inbound(free)] == ["hello", "1", "2"]
    services.intake.accept("demo", deliveries)
    assert [row.text for row in rows.inbound(locked)] == ["hello", "1", "2"]
    assert [row.text for row in rows.inbound(free)] == ["hello", "1", "2"]


def test_after_a_change_of_identity_of_a_locked_user_nothing_under_the_new_name_is_accepted_before_it(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    locked = accept("old").user_id
    lines: list[Line] = [
        _delivery("old", "1"),
        IdentityChange(senders=("old",), adds=("new",), drops=("old",), external_id="change"),
        _delivery("new", "2"),
    ]
    with _held(settings, [locked]):
        assert not stand(services, lines)
        assert not stand(services, lines[1:])
    accepted = services.intake.accept("demo", lines)
    assert [(one.user_id, one.seq) for one in accepted] == [(locked, 2), (locked, 3), (locked, 4)]


def test_a_list_waits_for_all_its_locked_users_together_no_longer_than_for_a_few(
    rows: Rows, services: Services, settings: Settings, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "ANSWER_MAX_S", 1.5)
    locked = [accept(f"locked {nr}").user_id for nr in range(LOCKED)]
    free = accept("free").user_id
    deliveries = [_delivery(sender, "1") for sender in (*(f"locked {nr}" for nr in range(LOCKED)), "free")]
    with _held(settings, locked):
        began = time.monotonic()
        assert not stand(services, deliveries)
        assert time.monotonic() - began < LOCKED * 0.5 / 2
    assert [row.text for row in rows.inbound(free)] == ["hello", "1"]
    assert [row.text for row in rows.inbound(locked[-1])] == ["hello"]


@pytest.mark.slow
def test_turns_of_others_go_on_beside_more_locked_users_than_connections(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    locked = [accept(f"locked {nr}").user_id for nr in range(2 * settings.db_pool_max)]
    with _held(settings, locked), run_worker(settings):
        others = [accept(f"free {nr}").user_id for nr in range(10)]
        eventually(lambda: all(rows.is_settled(user_id) for user_id in others))
        assert rows.waits_ms(others)[-1] < OTHERS_WAIT_MAX_S * 1000
        assert not any(rows.is_settled(user_id) for user_id in locked)
    with run_worker(settings):
        eventually(lambda: rows.waiting() == 0)
    assert rows.attempts_max() == 0


def test_a_turn_that_asks_again_for_a_held_row_is_refused_for_now_without_waiting_again(
    services: Services, settings: Settings, accept: Accept
) -> None:
    user_id = accept("locked").user_id
    records = Records(settings, services.database, Event())
    lease = Lease(user_id=user_id, token="t", fence=1, taken_over=True)
    with _held(settings, [user_id]):
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                loops.run(records.begin(lease, None, is_first=True))
