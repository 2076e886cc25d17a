"""Leases that overlap all the time lose nothing: what keeps counters, order and replies is in Postgres alone."""

from collections.abc import Iterator

import psycopg
import pytest

from onelane.dev.embedded import EmbeddedPostgres
from onelane.postgres.migrations import migrate, shipped_code
from tests.conftest import NIGHTLY
from tests.overlapping import GUARD, TURN_ENDS, play

PLANTED = {
    "the version of a commit": (
        "settle_turn",
        "v_user.version <> (p_turn ->> 'version')::bigint",
        "false",
        "a lost or doubled update",
    ),
    "the fence of a commit": (
        "settle_turn",
        "is_fenced(v_user.fence, (p_turn ->> 'fence')::bigint)",
        "false",
        "settle: {",
    ),
    "the fence of a begin": ("begin_turn", "is_fenced(v_user.fence, v_fence)", "false", "begin: {"),
}
"""What is not compared any more, and what is then seen."""

SEEDS = (5, 8, 6)


@pytest.fixture(scope="module")
def scratch(postgres: EmbeddedPostgres) -> Iterator[str]:
    """Make a database whose functions a test may spoil."""
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE overlapping")
        url = postgres.url.replace("/postgres?", "/overlapping?")
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(GUARD)
        yield url
        admin.execute("DROP DATABASE overlapping WITH (FORCE)")


def test_a_few_hundred_turns_of_overlapping_leases_are_exact(scratch: str) -> None:
    wrong, outcomes = play(scratch, seed=SEEDS[0], turns=300, threads=1, users=2)
    assert wrong == []
    assert set(outcomes) == TURN_ENDS


@pytest.mark.slow
@pytest.mark.parametrize("turns", [5_000, pytest.param(20_000, marks=NIGHTLY)])
def test_thousands_of_turns_of_overlapping_leases_are_exact(scratch: str, turns: int) -> None:
    wrong, outcomes = play(scratch, seed=2, turns=turns, threads=4, users=6)
    assert wrong == []
    assert set(outcomes) == TURN_ENDS
    with psycopg.connect(scratch) as connection:
        rows = connection.execute("SELECT DISTINCT ended_reason FROM conversation_sessions").fetchall()
    assert {reason for (reason,) in rows} >= {"timeout", "max_age", "handler", "operator", None}


@pytest.mark.parametrize(("function", "compared", "instead", "seen"), PLANTED.values(), ids=PLANTED.keys())
def test_without_one_comparison_a_few_hundred_turns_are_enough_to_see_it(
    scratch: str, function: str, compared: str, instead: str, seen: str
) -> None:
    body = shipped_code()[f"functions/{function}"]
    assert body.count(compared) == 1
    with psycopg.connect(scratch, autocommit=True) as connection:
        connection.execute(body.replace(compared, instead).encode())
        try:
            games = (play(scratch, seed=seed, turns=300, threads=1, users=2) for seed in SEEDS)
            assert any(seen in one for wrong, _ in games for one in wrong)
        finally:
            connection.execute(body.encode())
