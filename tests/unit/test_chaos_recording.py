"""What the chaos harness notes of a worker: when a turn was asked for, not when its answer was fetched."""

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from onelane.config import Settings
from onelane.model import JsonObject, Lease
from onelane.postgres.db import Database
from onelane.turns.records import Records
from tests import loops
from tests.chaos.history import Recorder, read
from tests.chaos.service.recording import record_turns


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    """Record into this folder; the methods are as before once the test is over."""
    for method in ("begin", "begin_ahead", "commit", "fail"):
        monkeypatch.setattr(Records, method, getattr(Records, method))
    recorder = Recorder("worker", tmp_path)
    record_turns(recorder)
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
