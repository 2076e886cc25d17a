"""The benchmark's own arithmetic, and the document that is made from its results."""

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from bench import plots, publishing, result, table
from bench.claims import CLAIMS, fairness
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
