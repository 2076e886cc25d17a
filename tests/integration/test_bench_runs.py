"""The benchmark works as a command, and its judgement of a run sees what it is to see."""

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
from bench.checking import Sent
from bench.errors import BenchError
from onelane.bootstrap import Services
from onelane.deliveries import Accepted
from tests.conftest import ROOT
from tests.rows import Rows

Accept = Callable[..., Accepted]


def bench(tmp_path: Path, *arguments: str) -> tuple[list[str], dict[str, Any]]:
    """Run a claim quickly, see that its table is printed, and return who took part and the results."""
    ended = subprocess.run(
        [sys.executable, "-m", "bench", *arguments, "--quick", "--runs", "1", "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "MPLCONFIGDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.glob("onelane-bench-*")) == []
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert all(f"\n  {row[0]}  " in ended.stdout for row in results[arguments[0]]["rows"])
    return list(results[arguments[0]]["found"]), results


@pytest.mark.slow
def test_a_small_drain_beside_a_peer_prints_its_table_and_leaves_json_and_a_plot(tmp_path: Path) -> None:
    who, results = bench(tmp_path, "drain", "--peer", "pgbench, begin")
    assert who == ["onelane, 1 process", "pgbench, begin + commit, 4 clients"]
    [ours] = results["drain"]["found"]["onelane, 1 process"]
    assert (ours["messages"], ours["lost"], ours["users_out_of_order"], ours["verdict"]) == (200, 0, 0, {})
    assert (tmp_path / "out" / "drain.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_the_whole_way_goes_over_intake_and_over_http_beside_another_checkout(tmp_path: Path) -> None:
    another = tmp_path / "another"
    another.mkdir()
    for name in ("worker", "app", "sql", "bench", ".git"):
        (another / name).symlink_to(ROOT / name)
    (another / ".venv" / "bin").mkdir(parents=True)
    (another / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (another / ".venv" / "bin" / "python").chmod(0o755)
    who, results = bench(tmp_path, "whole_way", "--peer", "pgbench", "--against", str(another))
    assert [one.partition(",")[0] for one in who] == [
        "onelane",
        "onelane over signed HTTP",
        "earlier version",
        "pgbench",
    ]
    for [one] in results["whole_way"]["found"].values():
        assert (one["messages"], one["lost"], one["verdict"]) == (400, 0, {})
        assert one["messages_per_s"] > 0
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert one["postgres_cpu_ms"] > 0


@pytest.mark.nightly
@pytest.mark.slow
def test_the_cost_of_a_message_over_http_names_the_price_of_a_million(tmp_path: Path) -> None:
    who, results = bench(tmp_path, "cost", "--peer", "rq SimpleWorker + Lock")
    peer = "rq SimpleWorker + Lock"
    assert who == ["onelane, signed HTTP", f"{peer}, signed HTTP", "onelane", peer]
    [ours] = results["cost"]["found"]["onelane, signed HTTP"]
    assert min(ours[name] for name in ("web_cpu_ms", "worker_cpu_ms", "wal_bytes", "redis_commands", "statements")) > 0
    assert "million Redis commands" in results["cost"]["notes"][-1]


@pytest.mark.nightly
@pytest.mark.slow
def test_an_idle_worker_and_an_idle_web_are_looked_at(tmp_path: Path) -> None:
    who, results = bench(tmp_path, "idle")
    assert who == ["onelane worker", "onelane worker and web"]
    assert all(one["commands"] > 0 and one["verdict"] == {} for [one] in results["idle"]["found"].values())


@pytest.mark.nightly
@pytest.mark.slow
def test_turns_wait_at_once_in_threads_and_on_the_loop(tmp_path: Path) -> None:
    who, results = bench(tmp_path, "async_slots")
    assert who == ["onelane, sync handler", "onelane, async handler"]
    at_once = [one["at_once"] for [one] in results["async_slots"]["found"].values()]
    assert at_once == [40, 200]


@pytest.mark.slow
def test_a_webhooks_rows_are_judged(tmp_path: Path) -> None:
    _, results = bench(tmp_path, "live", "--peer", "nobody")
    [ours] = results["live"]["found"]["onelane"]
    assert (ours["unanswered"], ours["verdict"]) == (0, {})


@pytest.mark.slow
def test_a_web_that_has_no_worker_beside_it_accepts_what_then_waits(tmp_path: Path) -> None:
    who, results = bench(tmp_path, "webhook", "--peer", "nobody")
    assert who == ["onelane", "onelane, the web alone"]
    [[ours], [alone]] = results["webhook"]["found"].values()
    assert [(one["refused"], one["unanswered"], one["verdict"]) for one in (ours, alone)] == [(0, 0, {})] * 2


ANNA, BERT = "(SELECT id FROM users WHERE sender = 'anna')", "(SELECT id FROM users WHERE sender = 'bert')"
PLANTED = {
    "sent, and not stored as sent": "UPDATE messages SET text = 'other' WHERE external_id = 'anna-1'",
    "stored, and never sent": "UPDATE messages SET external_id = 'nobody' WHERE external_id = 'anna-1'",
    "stored twice": "UPDATE messages SET external_id = 'anna-1' WHERE external_id = 'anna-2'",
    "users whose numbers have a gap": f"UPDATE users SET last_seq = 4 WHERE id = {ANNA}",
    "numbered in another order than sent": (
        "UPDATE messages SET external_id = CASE external_id WHEN 'anna-1' THEN 'anna-2' ELSE 'anna-1' END"
        " WHERE external_id IN ('anna-1', 'anna-2')"
    ),
    "users committed out of order": (
        "UPDATE messages SET processed_at = processed_at - interval '1 hour' WHERE external_id = 'anna-3'"
    ),
    "without exactly its one reply": f"DELETE FROM messages WHERE user_id = {ANNA} AND turn_seq = 2 AND ordinal = 1",
    "replies to nothing": f"UPDATE messages SET turn_seq = 9 WHERE user_id = {ANNA} AND turn_seq = 2 AND ordinal = 1",
    "users with several sessions": (
        "INSERT INTO conversation_sessions (user_id, status, started_at, last_message_at, ended_at, ended_reason,"
        f" sweep_at) VALUES ({ANNA}, 'ended', now(), now(), now(), 'timeout', now())"
    ),
    "in another user's session": f"UPDATE conversation_sessions SET user_id = {BERT} WHERE user_id = {ANNA}",
    "dead": "UPDATE messages SET state = 'dead' WHERE external_id = 'anna-3'",
    "users whose count of what waits is wrong": f"UPDATE users SET waiting = 1 WHERE id = {BERT}",
    "still waiting": (
        "INSERT INTO inbox (user_id, seq, id, channel, external_id, accepted_at)"
        f" VALUES ({BERT}, 1, gen_random_uuid(), 'demo', 'bert-1', now())"
    ),
}


@pytest.fixture
def stack(services: Services) -> Any:
    """What a benchmark asks of its own servers, here of the tests'."""
    import psycopg  # noqa: PLC0415

    connection = psycopg.connect(services.settings.database_url, autocommit=True)
    yield SimpleNamespace(
        do=lambda statement, *params: connection.execute(statement, params or None),
        value=lambda query: connection.execute(query).fetchall()[0][0],
    )
    connection.close()


@pytest.fixture
def sent(stack: Any, rows: Rows, accept: Accept) -> list[Sent]:
    """Three messages of Anna's, each with its reply; Bert is known, and has written nothing."""
    sent = [Sent(f"anna-{nr}", "anna", f"{nr}", nr) for nr in (1, 2, 3)]
    for one in sent:
        message = accept(one.sender, one.text, one.external_id)
        rows.settle(message.user_id, message.seq, one.text)
    rows.make_user("demo", "bert")
    return sent


def test_a_run_in_which_all_is_right_has_an_empty_verdict(stack: Any, sent: list[Sent]) -> None:
    assert checking.judge(stack, "onelane", sent) == {}


@pytest.mark.plants_a_bug
@pytest.mark.parametrize("rule", PLANTED)
def test_a_planted_fault_is_judged(stack: Any, sent: list[Sent], rule: str) -> None:
    stack.do(PLANTED[rule])
    assert rule in checking.judge(stack, "a peer", sent)
    with pytest.raises(BenchError, match=rule):
        checking.judge(stack, "onelane, 2 processes", sent)


def test_every_rule_has_a_planted_fault() -> None:
    assert set(PLANTED) == set(checking.AT_THE_END)
    assert set(checking.AT_ANY_TIME) == set(PLANTED) - {"still waiting"}


def test_what_was_never_accepted_is_lost(stack: Any, sent: list[Sent]) -> None:
    assert checking.judge(stack, "a peer", [*sent, Sent("bert-1", "bert", "1")]) == {"sent, and not stored as sent": 1}
    assert checking.lost(stack, 4) == 1
