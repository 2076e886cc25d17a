"""A Redis that takes its time: hundreds of slots share few connections, and nobody is taken for dead."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.lanes.gathering import Call
from onelane.lanes.scripts import Scripts
from onelane.operations.snapshot import Survey
from tests.conftest import RunWorker, accept_all, eventually
from tests.processes import worker_process
from tests.proxy import Proxy
from tests.rows import Rows

SLOTS = 200
AT_HAND = 100
ROUND_TRIPS_MAX = 4
"""Threads come one after the other, and the first round trip may find that the server has to learn the script."""
DELAY_S = 0.16
"""80 ms each way."""


@pytest.mark.slow
def test_all_lanes_at_hand_when_the_grace_is_over_are_handed_back_in_few_round_trips(
    services: Services,
    settings: Settings,
    rows: Rows,
    run_worker: RunWorker,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    parks: list[int] = []
    execute = Scripts._execute

    def counted(scripts: Scripts, calls: Sequence[Call]) -> list[Any]:
        if parked := sum(name == "park" for name, _ in calls):
            parks.append(parked)
        return execute(scripts, calls)

    monkeypatch.setattr(Scripts, "_execute", counted)
    accept_all(services, [(f"user {nr}", f"wait {tmp_path / 'gate'}") for nr in range(AT_HAND)])
    with Proxy(settings.redis_url) as proxy:
        slow = {
            "redis_url": proxy.url,
            "worker_slots": AT_HAND,
            "shutdown_grace_s": 0.1,
            "handler": "tests.bots:handle",
        }
        with run_worker(settings.model_copy(update=slow)) as worker:
            eventually(lambda: worker.runner._slots.free == 0)
            eventually(lambda: all(shift.stay.turn for shift in worker.runner._slots._all()))
            proxy.delay_s = DELAY_S
            worker.stop()
        (tmp_path / "gate").touch()
    assert len(parks) <= ROUND_TRIPS_MAX
    assert Survey(services.lanes).snapshot().due == AT_HAND


@pytest.mark.slow
def test_200_slots_behind_a_slow_redis_handle_everything_and_count_no_death(
    rows: Rows, services: Services, settings: Settings
) -> None:
    accept_all(services, [(f"user {nr % SLOTS}", "sleep 0.1") for nr in range(3 * SLOTS)])
    with Proxy(settings.redis_url) as proxy:
        proxy.delay_s = DELAY_S
        slow = settings.model_copy(update={"redis_url": proxy.url, "worker_slots": SLOTS, "quantum_turns": 1})
        with worker_process(slow):
            eventually(lambda: rows.waiting() == 0)
    assert rows.answered() == 3 * SLOTS
    assert rows.ask("SELECT max(deaths) AS most FROM messages").most == 0
