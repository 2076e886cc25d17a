"""What the chaos harness notes of a worker: its sends; of turns, when one was asked for, not when that was fetched."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from onelane.config import Settings
from onelane.model import JsonObject, Lease
from onelane.outbox.records import SendRecords
from onelane.outbox.reply import Deed, Fate, Waiting
from onelane.postgres.db import Database
from onelane.turns.records import Records
from tests import loops
from tests.chaos.history import Recorder, read
from tests.chaos.service.recording import record_sends, record_turns


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    """Record into this folder; the methods are as before once the test is over."""
    for method in ("begin", "begin_ahead", "commit", "fail"):
        monkeypatch.setattr(Records, method, getattr(Records, method))
    for method in ("begin", "settle"):
        monkeypatch.setattr(SendRecords, method, getattr(SendRecords, method))
    recorder = Recorder("worker", tmp_path)
    record_turns(recorder)
    record_sends(recorder)
    return recorder


def nothing_waits(items: Sequence[JsonObject], _waits: bool) -> list[Any]:
    return [{"user_id": item["user_id"], "outcome": "idle", "fence": 0} for item in items]


def test_a_begin_is_noted_since_it_was_asked_for_also_ahead(recorder: Recorder, tmp_path: Path) -> None:
    database = SimpleNamespace(breaker=None, asks=lambda _function: nothing_waits)
    records = Records(cast("Settings", SimpleNamespace(db_pool_max=2)), cast("Database", database), Event())
    lease = Lease(user_id=uuid4(), token="t", fence=1, taken_over=False)
    before = time.monotonic()
    records.begin_ahead([lease])
    asked = time.monotonic()
    for is_first in (True, False):
        loops.run(records.begin(lease, None, is_first=is_first))
    first, second = (event["since"] for event in read(tmp_path) if event["kind"] == "begin")
    assert before <= first <= asked < second


def one_waits(items: Sequence[JsonObject], _waits: bool) -> list[Any]:
    """Mark a reply; store what became of it, and find no other."""
    begun = {"outcome": "send", "fence": 1, "reply": REPLY.model_dump(mode="json")}
    following = {"outcome": "idle", "fence": 1}
    settled = {"outcome": "settled", "state": "sent", "has_more": False, "next": following}
    return [settled if "reply_id" in item else begun for item in items]


NOW = datetime(2026, 1, 1, tzinfo=UTC)
REPLY = Waiting(id=uuid4(), seq=1, ordinal=1, channel="demo", attempt=2, sending_at=NOW, now=NOW)


@pytest.mark.usefixtures("recorder")
def test_marks_of_replies_and_what_became_of_them_are_noted(tmp_path: Path) -> None:
    breaker = SimpleNamespace(close=lambda: None)
    database = SimpleNamespace(breaker=breaker, asks=lambda _function: one_waits)
    settings = SimpleNamespace(db_pool_max=2, commit_hold_s=1, send_deadline_s=2)
    records = SendRecords(cast("Settings", settings), cast("Database", database))
    lease = Lease(user_id=uuid4(), token="t", fence=1, taken_over=False)
    loops.run(records.begin(lease, Event()))
    loops.run(records.settle(lease, REPLY, Fate(Deed.ACCEPTED), goes_on=True))
    noted = [(event["kind"], event["outcome"], event["reply_id"], event.get("deed")) for event in read(tmp_path)]
    assert noted == [
        ("out_begin", "send", str(REPLY.id), None),
        ("out_settle", "settled", str(REPLY.id), "accepted"),
        ("out_begin", "idle", None, None),
    ]
