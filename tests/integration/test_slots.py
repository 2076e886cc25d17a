"""Many lanes in one process: threads for turns, few connections, no lease lost."""

from pathlib import Path

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.embedded.child import children_of
from tests.conftest import Accept, eventually
from tests.processes import the_child, worker_process
from tests.rows import Rows

SLOTS = 200
USERS = 1_000


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("handler", ["tests.bots:handle", "tests.bots:handle_async"])
def test_two_hundred_slow_turns_at_once_need_eight_connections(
    rows: Rows, handler: str, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    for nr in range(USERS):
        accept(f"user {nr}", "sleep 2")
    connections = 0

    def all_answered() -> bool:
        nonlocal connections
        row = rows.ask(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'onelane' AND datname = 'postgres'"
        )
        connections = max(connections, row.n)
        return rows.answered() == USERS

    with worker_process(
        settings, f"--slots={SLOTS}", handler=handler, log=tmp_path / "worker.log", lock_ttl_s=5
    ) as process:
        child = the_child(process)
        eventually(all_answered, within_s=60, every_s=0.1)
        resident_mb = _resident_mb(child)
        assert len(children_of(child)) == 1  # the keeper: nobody is a suspect
    assert connections <= 8 + 2  # the test's own pool counts here too
    assert resident_mb <= 300
    assert "lease_lost" not in (tmp_path / "worker.log").read_text()


def test_busy_handlers_lose_no_lease(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    for nr in range(SLOTS):
        accept(f"user {nr}", "burn 50")
    with worker_process(settings, f"--slots={SLOTS}", log=tmp_path / "worker.log", lock_ttl_s=3):
        eventually(lambda: rows.answered() == SLOTS, within_s=60)
    said = (tmp_path / "worker.log").read_text()
    assert "lease_lost" not in said
    assert "lane_taken_over" not in said
