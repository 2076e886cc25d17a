"""Many lanes in one process: threads for turns, few connections, no lease lost."""

from pathlib import Path

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.embedded.child import children_of
from tests.conftest import accept_all, eventually
from tests.processes import renewer_of, worker_process
from tests.rows import Rows

SLOTS = 200


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.parametrize("handler", ["tests.bots:handle_async", "tests.bots:handle"])
@pytest.mark.parametrize("users", [300, 1_000])
def test_two_hundred_slow_turns_at_once_need_eight_connections(
    rows: Rows, handler: str, users: int, services: Services, settings: Settings, tmp_path: Path
) -> None:
    accept_all(services, [(f"user {nr}", "sleep 1") for nr in range(users)])
    connections = 0

    def all_answered() -> bool:
        nonlocal connections
        row = rows.ask(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'onelane' AND datname = 'postgres'"
        )
        connections = max(connections, row.n)
        return rows.answered() == users

    with worker_process(
        settings, f"--slots={SLOTS}", handler=handler, log=tmp_path / "worker.log", lock_ttl_s=5
    ) as process:
        eventually(all_answered, every_s=0.1)
        resident_mb = _resident_mb(process.pid)
        eventually(lambda: children_of(process.pid) == [renewer_of(process.pid)])  # nobody is a suspect
    assert connections <= 8 + 2  # the test's own pool counts here too
    assert resident_mb <= 300
    assert "lease_lost" not in (tmp_path / "worker.log").read_text()


@pytest.mark.parametrize("burns_ms", [pytest.param(ms, marks=pytest.mark.slow) for ms in (15, 50)])
def test_busy_handlers_lose_no_lease(
    rows: Rows, services: Services, settings: Settings, burns_ms: int, tmp_path: Path
) -> None:
    accept_all(services, [(f"user {nr}", f"burn {burns_ms}") for nr in range(SLOTS)])
    with worker_process(settings, f"--slots={SLOTS}", log=tmp_path / "worker.log", lock_ttl_s=6):
        eventually(lambda: rows.answered() == SLOTS)
    said = (tmp_path / "worker.log").read_text()
    assert "lease_lost" not in said
    assert "lane_taken_over" not in said
