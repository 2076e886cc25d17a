"""Every interleaving of two workers, by a transcription of the protocol; and the transcription beside real servers."""

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
import redis
from psycopg.rows import namedtuple_row

from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from onelane.lanes.scripts import connect
from tests.explore import lanes, records
from tests.explore.beside import go, walk
from tests.explore.bugs import PLANTED, Bug, Change, planted
from tests.explore.search import Search
from tests.explore.settings import ANYTHING, QUICK, SMALL, WALKED, Setting
from tests.explore.steps import Step, told

STATES_MIN = 100_000
WALKS_MAX = 100
"""Of each kind: more than it takes to meet the rarest of these differences."""
DIFFERENT = {
    "a lane on which nothing waits stays": Change(lanes, "if not has_work:", "if False:"),
    "a lease that has run out is lost": Change(
        lanes,
        "if lane.lock != mine:\n        return lane, False\n    place = Place.LATER",
        "if not lane.is_live:\n        return lane, False\n    place = Place.LATER",
    ),
    "who takes over writes no fence": Change(records, "if taken_over:", "if False:"),
    "an answer under an old fence counts for nothing": Change(
        records, 'if fate == "accepted":', 'if fate == "accepted" and user.out_fence <= fence:'
    ),
    "who hands out a reply again counts a request": Change(records, '+ (lowest.state == "pending")', "+ 1"),
}

BOTH_LEASED = [
    *("a web accepts message 1", "a web puts message 1 on the lane", "worker 2 (in) leases user 1"),
    *("a web accepts message 1", "a web puts message 1 on the lane", "worker 1 (in) leases user 2"),
]
BOTH_SETTLED = [
    *("worker 2 (in) begins a turn", "the reconciler finds user 1 (in)", "the reconciler brings back user 1 (in)"),
    *("worker 1 (in) leases user 1", "worker 1 (in) begins a turn", "worker 1 (in) raises in its handler"),
    *("worker 1 (in) settles its turn", "worker 2 (in) settles its turn"),
]


@pytest.fixture(scope="module")
def connection(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.url, autocommit=True, row_factory=namedtuple_row) as connection:
        yield connection


@pytest.fixture(scope="module")
def client(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    client = connect(redis_server.url, timeout_s=5, wait_s=5, connections_max=2)
    yield client
    client.close()


@pytest.mark.parametrize(
    ("settings", "least"), [(SMALL, 1_000), pytest.param(QUICK, STATES_MIN, marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_no_promise_is_broken_however_the_steps_interleave(settings: Mapping[str, Setting], least: int) -> None:
    explored = [Search(setting).run() for setting in settings.values()]
    assert [one.found for one in explored if one.found or not one.is_complete] == []
    assert sum(one.states for one in explored) >= least


@pytest.mark.parametrize("bug", PLANTED.values(), ids=PLANTED)
def test_each_planted_bug_breaks_the_promise_that_is_there_for_it(bug: Bug) -> None:
    with planted(bug.changes):
        found = Search(bug.setting).run().found
    assert found
    assert found.promise == bug.promise


@pytest.mark.parametrize("name", WALKED)
@pytest.mark.parametrize("walks", [3, pytest.param(25, marks=pytest.mark.slow)], ids=["few", "many"])
def test_the_real_scripts_and_functions_do_what_is_explored(
    connection: psycopg.Connection[Any], client: redis.Redis, name: str, walks: int
) -> None:
    for seed in range(walks):
        walk(connection, client, WALKED[name], seed)


@pytest.mark.parametrize("lost", [("worker 1 dies", "Redis fails over"), ("Redis fails over", "worker 1 dies")])
def test_a_counter_that_has_lost_a_lease_gives_its_fence_again_whatever_became_of_its_holder(
    connection: psycopg.Connection[Any], client: redis.Redis, lost: tuple[str, str]
) -> None:
    way = iter([*BOTH_LEASED, *lost, *BOTH_SETTLED])

    def along(possible: list[Step]) -> Step:
        step = next(way, None)
        return next(one for one in possible if step is None or told(one).startswith(step))

    go(connection, client, Setting(users=2, messages=1, budget=ANYTHING), along, "both settle")
    assert next(way, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("difference", DIFFERENT)
def test_a_transcription_that_differs_is_noticed(
    connection: psycopg.Connection[Any], client: redis.Redis, difference: str
) -> None:
    def walk_on() -> None:
        for seed in range(WALKS_MAX):
            for setting in WALKED.values():
                walk(connection, client, setting, seed)

    with planted([DIFFERENT[difference]]), pytest.raises(AssertionError, match=r"real: "):
        walk_on()
