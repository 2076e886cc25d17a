"""Nothing of ours blocks the loop on which all shifts of a worker run; and a worker whose loop hangs is replaced."""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from onelane import periodic
from onelane.bootstrap import Services
from onelane.bot import Turn
from onelane.config import Settings
from onelane.lanes.scripts import Scripts
from onelane.postgres.db import Database
from onelane.processes import dispatcher
from onelane.turns.handling import SUSPECT_AFTER_DEATHS
from onelane.turns.records import Records
from onelane.wire import Wire
from tests.conftest import DEADLINE_S, Accept, LogLines, RunWorker, eventually
from tests.rows import Rows
from tests.working_off import work_off

WORK_LOOP = "shifts"
WAITS = [(Database, "_within"), (Scripts, "ask_once"), (Wire, "receive"), (threading.Thread, "start")]
"""What waits: for Postgres, for Redis, for another process, for the system's next thread."""


def handle(turn: Turn) -> str:
    """Read, and do as the text says."""
    turn.history()
    if turn.message.text == "raise":
        raise ValueError
    return "done"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The threads, by name, in which anything waited."""
    threads: dict[str, set[str]] = {}

    def note(owner: type, method: str) -> None:
        original = getattr(owner, method)

        @wraps(original)
        def noting(*args: Any, **kwargs: Any) -> Any:
            threads.setdefault(threading.current_thread().name, set()).add(f"{owner.__name__}.{method}")
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, method, noting)

    for owner, method in WAITS:
        note(owner, method)
    return threads


@pytest.fixture
def every_way(services: Services, settings: Settings, accept: Accept, rows: Rows) -> Callable[[], None]:
    """Work off lanes that end in every way: several turns, a failure, a burial, a pause, nothing to do, a suspect."""

    def work() -> None:
        for sender in ("several turns", "several turns", "a suspect"):
            suspect = accept(sender)
        accept("fails", "raise")
        rows.set_deaths(suspect.message_id, SUSPECT_AFTER_DEATHS)
        paused, done = accept("is paused"), accept("is done already")
        rows.pause(paused.user_id)
        rows.settle(done.user_id, 1)
        work_off(services, settings.model_copy(update={"attempts_max": 2, "handler": "tests.bots:handle"}), handle)
        assert rows.waiting() == 1

    return work


def test_no_shift_waits_for_anything_on_the_loop(every_way: Callable[[], None], seen: dict[str, set[str]]) -> None:
    every_way()
    assert {waits for names in seen.values() for waits in names} == {
        f"{owner.__name__}.{method}" for owner, method in WAITS
    }, "all of it was done, elsewhere"
    assert seen.get(WORK_LOOP, set()) <= {"Thread.start"}, "a thread is started at most"


def test_a_call_that_waits_on_the_loop_would_be_found(
    every_way: Callable[[], None], seen: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Records.begin

    async def begin_after_a_look(records: Records, *args: Any, **kwargs: Any) -> Any:
        records._database.rows("SELECT 1")
        return await begin(records, *args, **kwargs)

    monkeypatch.setattr(Records, "begin", begin_after_a_look)
    every_way()
    assert "Database._within" in seen[WORK_LOOP]


@pytest.mark.slow
def test_a_worker_whose_work_loop_hangs_is_replaced(
    settings: Settings, run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    monkeypatch.setattr(periodic, "LIMIT_S", 2)
    monkeypatch.setattr(dispatcher, "IDLE_WAIT_MAX_S", 0.05)  # the dispatcher's wait is none that hangs
    gate = threading.Event()

    async def hangs() -> None:
        gate.wait(DEADLINE_S)

    with run_worker(settings) as worker:
        loop = worker.runner._loop
        loop.run_all([hangs()])
        eventually(lambda: worker.runner._is_stuck)
    gate.set()
    assert [line["task"] for line in log_lines if line["event"] == "worker_hopeless"] == [WORK_LOOP]
