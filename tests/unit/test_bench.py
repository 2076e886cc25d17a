"""The benchmark's own arithmetic, and the document that is made from its results."""

import os
import signal
import tempfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Ran

from bench import __main__ as command
from bench import plots, publishing, result, serving, stack, table
from bench.claims import CLAIMS, drain, fairness, whole_way
from bench.errors import BenchError
from bench.measuring import Rounds, alternate
from bench.peers import pgbench
from bench.peers.rq_workers import FORKING
from bench.plan import Plan
from bench.result import Goal, Result
from bench.traffic import quantile, requests
from bench.workload import Workload

ROUNDS = Rounds({"onelane": [{"rate": 10}, {"rate": 4}, {"rate": 9}], "rq": [{"rate": 5}, {"rate": 1}, {"rate": 3}]})


def a_result(**changes: Any) -> Result:
    made = Result.of(
        Plan(),
        "drain",
        "Drain",
        ROUNDS,
        columns=["who", "messages/s"],
        row=lambda _rounds, name: [name, "9"],
        goals=[Goal.at_least("ours ÷ rq", 5, 3.0)],
        notes=["A note."],
    )
    return replace(made, **changes)


def test_a_ratio_is_taken_within_its_round() -> None:
    assert ROUNDS.ratio("onelane", "rq", "rate") == 3  # of 2, 4 and 3; the medians' would be 9 / 3
    assert ROUNDS.median("onelane", "rate") == 9
    assert ROUNDS.worst("onelane", "rate") == 10


def test_contestants_run_in_turns() -> None:
    ran: list[str] = []

    def run(name: str) -> dict[str, Any]:
        ran.append(name)
        return {"rate": 1}

    runs = {name: partial(run, name) for name in ("ours", "theirs")}
    rounds = alternate(Plan(runs=3, report=lambda _: None), runs)
    assert ran == ["ours", "theirs"] * 3
    assert len(rounds.load) == 3


def test_a_peer_that_fails_takes_part_no_longer_and_ours_must_not_fail() -> None:
    def fail() -> dict[str, Any]:
        raise IndexError("no notes")

    plan = Plan(runs=2, report=lambda _: None)
    rounds = alternate(plan, {"rq worker": fail, "onelane": lambda: {"rate": 1}})
    assert rounds.found == {"onelane": [{"rate": 1}, {"rate": 1}]}
    made = Result.of(plan, "drain", "Drain", rounds, columns=["who"], row=lambda _rounds, name: [name], notes=[])
    assert made.notes == ["Failed, and not measured: rq worker (no notes)."]
    with pytest.raises(IndexError):
        alternate(plan, {"onelane": fail})


@pytest.mark.parametrize(
    ("measured", "limit", "text"),
    [
        (0.68, 2, "0.68"),
        (44.193, 20, "44.2"),
        (999.7, 1, "999.7"),
        (1_338.4, 20, "1,338"),
        (5_000, 5_000, "5,000"),
        (1_234_567.4, 1, "1,234,567"),
        (1.5004, 1.5, "1.5004"),
        (4_999.9, 5_000, "4,999.9"),
    ],
)
def test_a_figure_is_written_out_and_differs_from_its_limit(measured: float, limit: float, text: str) -> None:
    assert Goal.at_least("messages", limit, measured).measured == text


def test_the_spread_of_the_rounds_stands_beside_their_median() -> None:
    goals = [Goal.at_least("ours ÷ rq", 5, ROUNDS.ratios("onelane", "rq", "rate"))]
    assert "- ours ÷ rq: at least 5 — **3** (2 to 4), missed" in table.in_markdown(a_result(goals=goals))


def test_a_goal_beside_an_absent_peer_is_not_measured() -> None:
    figures = {"who": "onelane", "messages_per_s": 1.0, "cpu_ms": 1.0, "postgres_cpu_ms": 0.4}
    rounds = Rounds({"onelane": [figures], "onelane, 1 process": [figures]})
    goals = drain.goals(rounds) + whole_way.goals(rounds)
    assert "onelane ÷ rq worker + Lock: at least 20" in {goal.text for goal in goals if not goal.measured}
    assert "- ours ÷ earlier version: at least 2 — **not measured**\n" in table.in_markdown(a_result(goals=goals))
    assert not any(goal.is_missed_floor for goal in goals)


def test_nothing_is_divided_where_rates_differ() -> None:
    rounds = Rounds(
        {name: [{"rate": rate, "p50": 2}] for name, rate in {"onelane": 50, "rq": 50, "rq slow": 10}.items()}
    )
    assert [serving.ours_to(rounds, name, "p50") for name in rounds.found] == ["", "1.00", ""]


def test_what_is_refused_or_never_answered_misses_its_goal() -> None:
    rounds = Rounds({"onelane": [{"refused": 0, "unanswered": 0}, {"refused": 0, "unanswered": 1}]})
    assert not serving.all_replied(rounds, "onelane").is_reached


def test_a_call_of_pgbench_counts_from_when_it_was_due(tmp_path: Path) -> None:
    (tmp_path / "took.1").write_text("0 1 2500 0 1000 500000 40\n")
    [(due, took_ms)] = pgbench.logged(tmp_path / "took")
    assert (round(due, 4), took_ms) == (1000.4975, 2.5)


def test_a_result_of_a_busy_machine_says_so() -> None:
    assert "Others kept the machine busy" in table.in_markdown(a_result(is_busy=True))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run the command with claims that measure nothing."""
    floor = Goal.at_least("ours ÷ rq (floor)", 5, 3.0)

    def fail(_plan: Plan) -> Result:
        raise BenchError("nothing was processed")

    claims = {
        "live": fail,
        "drain": lambda _plan: a_result(),
        "whole_way": lambda _plan: a_result(goals=[floor]),
        "cost": lambda _plan: a_result(failed=["pgbench"]),
    }
    monkeypatch.setattr(command, "CLAIMS", claims)
    monkeypatch.setattr(command, "_forget_settings", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(plots, "draw", lambda *_: None)
    monkeypatch.setattr(publishing, "PUBLISHED", tmp_path)
    monkeypatch.setattr(publishing, "publish", lambda _results: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(*arguments: str) -> Ran:
        return CliRunner().invoke(command.main, [*arguments, "--out", str(tmp_path)])

    return run


def test_a_claim_that_fails_fails_the_command_once_the_others_are_measured(bench: Any, tmp_path: Path) -> None:
    assert str(bench("live", "drain").exception) == "live failed"
    assert list(result.load(tmp_path)) == ["drain"]


def test_a_missed_floor_fails_the_command_and_a_missed_goal_does_not(bench: Any) -> None:
    assert bench("drain").exit_code == 0
    assert str(bench("whole_way").exception) == "whole_way missed ours ÷ rq (floor): at least 5"
    assert bench("whole_way", "--quick").exit_code == 0


@pytest.mark.parametrize("part", [["--quick"], ["--peer", "rq"], ["--runs", "2"], ["storm", "--runs", "2"]])
def test_nothing_partial_is_published(bench: Any, part: list[str]) -> None:
    ran = bench("drain", "--publish", *part)
    assert (ran.exit_code, "are published" in ran.output) == (2, True)


def test_a_result_without_a_peer_that_failed_is_kept_and_not_published(bench: Any, tmp_path: Path) -> None:
    for options, kept in (["--publish"], []), ([], ["cost"]):
        assert str(bench("cost", *options).exception) == "cost: pgbench failed"
        assert list(result.load(tmp_path)) == kept


def test_the_folder_of_a_killed_run_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, alive = (tmp_path / f"{stack.FOLDERS}{pid}-abc" for pid in (2**22 + 1, os.getpid()))
    dead.mkdir()
    alive.mkdir()
    stack.remove_leftovers()
    assert list(tmp_path.iterdir()) == [alive]


def test_a_missed_goal_is_called_missed() -> None:
    assert not Goal.at_least("ours ÷ rq", 5, 4.99).is_reached
    assert Goal.at_most("p99", 25, 25.0, " ms").is_reached
    assert "missed   ours ÷ rq: at least 5 — 3" in table.in_terminal(a_result())
    assert "- ours ÷ rq: at least 5 — **3**, missed" in table.in_markdown(a_result())


def test_a_table_ends_with_the_judgement_of_the_rows() -> None:
    assert "were judged" not in table.in_terminal(a_result())
    right = a_result(found={"onelane": [{"verdict": {}}], "rq": [{"verdict": {}}, {}]})
    assert "Each run's rows were judged: nothing lost, doubled or out of order." in table.in_markdown(right)
    wrong = a_result(found={"onelane": [{"verdict": {}}], "rq": [{"verdict": {}}, {"verdict": {"stored twice": 3}}]})
    assert "Each run's rows were judged: rq, stored twice: 3." in table.in_terminal(wrong)


@pytest.mark.parametrize(("part", "value"), [(0, 1), (0.5, 50), (0.99, 99), (0.999, 100), (1, 100)])
def test_a_quantile_is_a_value_that_was_measured(part: float, value: int) -> None:
    assert quantile(list(range(100, 0, -1)), part) == value


def test_users_write_in_turns_or_as_skewed_as_was_asked() -> None:
    even = Counter(Workload(500, 4_000).senders())
    assert set(even.values()) == {8}
    skewed = Workload(500, 4_000, hot_users=10).senders()
    assert skewed == Workload(500, 4_000, hot_users=10).senders()
    assert sum(sender < 10 for sender in skewed) == 2_000
    assert len(set(skewed)) == 500


def test_a_part_of_a_workload_has_fewer_users_who_write_as_much() -> None:
    assert Workload(500, 4_000, hot_users=10).part(0.1) == Workload(50, 400, hot_users=1)


def test_a_flood_is_one_users_who_is_none_of_the_others() -> None:
    flood = fairness.flood_of(200)
    assert {message.sender for message in flood} == {fairness.FLOODER}
    ids = {message.external_id for message in flood}
    assert len(ids) == 200
    others = requests(200, users=100)
    assert not ids & {request.message.external_id for request in others}
    assert not any(fairness.FLOODER.encode() in request.signed.body for request in others)


def test_each_claim_has_its_plot() -> None:
    assert set(plots.DRAWN) == set(CLAIMS)


def test_peers_are_chosen_by_how_their_names_begin() -> None:
    assert Plan().wants(FORKING.name)
    assert not Plan(peers=("pgbench",)).wants(FORKING.name)
    assert Plan(peers=("pgbench",)).wants(pgbench.TURNS.name)


def test_the_document_has_a_place_for_each_claim_and_the_tables_of_its_results() -> None:
    text = publishing.DOCUMENT.read_text()
    assert all(f"<!-- {claim} -->" in text and f"<!-- /{claim} -->" in text for claim in CLAIMS)
    published = result.load(publishing.PUBLISHED)
    assert publishing.with_tables(text, published) == text
    assert all((publishing.PUBLISHED / f"{claim}.svg").exists() for claim in published)


def test_a_new_result_takes_the_old_ones_place() -> None:
    text = "before\n<!-- drain -->\nold\n<!-- /drain -->\nafter\n"
    once = publishing.with_tables(text, {"drain": a_result()})
    assert "old" not in once
    assert once.startswith("before\n<!-- drain -->\n\n| who | messages/s |\n")
    assert once.endswith("<!-- /drain -->\nafter\n")
    assert publishing.with_tables(once, {"drain": a_result()}) == once
