"""The benchmark works as a command, and its check of a drain sees what it is to see."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import checking
from onelane.bootstrap import Services
from onelane.model import Accepted
from tests.conftest import ROOT
from tests.rows import Rows

Accept = Callable[..., Accepted]


@pytest.mark.slow
def test_a_small_drain_beside_a_peer_prints_its_table_and_leaves_json_and_a_plot(tmp_path: Path) -> None:
    arguments = ["drain", "--quick", "--runs", "1", "--peer", "pgbench, begin", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "MPLCONFIGDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    rows = [line.split()[0] for line in ended.stdout.splitlines() if line.startswith(("  onelane", "  pgbench"))]
    assert rows == ["onelane", "pgbench,"]
    found = json.loads((tmp_path / "out" / "results.json").read_text())["drain"]
    [ours] = found["found"]["onelane, 1 process"]
    assert (ours["messages"], ours["lost"], ours["users_out_of_order"]) == (200, 0, 0)
    assert (tmp_path / "out" / "drain.svg").read_text().startswith("<?xml")
    assert list(tmp_path.glob("onelane-bench-*")) == []


def bystander(services: Services) -> Any:
    """Ask as the benchmark does of its own servers."""
    return SimpleNamespace(value=lambda query: Rows(services.database).ask(query)[0])


def test_a_drain_that_breaks_an_order_or_loses_a_message_is_seen(
    services: Services, rows: Rows, accept: Accept
) -> None:
    anna, bert = [[accept(sender, f"{nr}") for nr in range(3)] for sender in ("anna", "bert")]
    for message, reply in [(anna[0], "0"), (anna[1], "1"), (anna[2], "2"), (bert[1], "1"), (bert[0], "0")]:
        rows.settle(message.user_id, message.seq, reply)
    assert checking.users_out_of_order(bystander(services)) == 1
    assert checking.lost(bystander(services), 6) == 1
    rows.settle(bert[2].user_id, 3, "another's reply")
    assert checking.processed(bystander(services)) == 6
    assert checking.lost(bystander(services), 6) == 1
