"""A turn commits only on what it read: three ways to lose an update without any violated fence, all closed."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from onelane.bootstrap import Services
from onelane.bot import Turn
from onelane.config import Settings
from onelane.deliveries import Accepted
from onelane.errors import StoreUnavailable
from tests.calls import Calls, Item, lease, settlement
from tests.rows import Rows
from tests.working_off import work_off


@pytest.fixture
def calls(services: Services) -> Calls:
    return Calls(services.database)


def plus_one(begun: Item) -> dict[str, Any]:
    """Do what a handler does that counts."""
    return {"user_state": {"n": begun["turn"]["user"]["state"].get("n", 0) + 1}}


def count_of(services: Services) -> int:
    [row] = services.database.rows("SELECT (state ->> 'n')::int AS n FROM users")
    return int(row.n)


def test_two_leases_with_equal_fences_lose_no_update(
    services: Services, calls: Calls, accept: Callable[..., Accepted]
) -> None:
    """A fail-over lost the counter: two workers got the same number."""
    user_id = accept("alice").user_id
    accept("alice")
    [a] = calls.begin(lease(user_id, 7))
    [b] = calls.begin(lease(user_id, 7))
    [first] = calls.settle(settlement(a, 7, goes_on=True, **plus_one(a)))
    assert first["outcome"] == "committed"
    [lost] = calls.settle(settlement(b, 7, **plus_one(b)))
    assert lost["outcome"] == "already"
    [second] = calls.settle(settlement(first["next"], 7, **plus_one(first["next"])))
    assert second["outcome"] == "committed"
    assert count_of(services) == 2


def test_a_redriven_turn_under_an_older_fence_loses_no_update(
    services: Services, calls: Calls, accept: Callable[..., Accepted]
) -> None:
    """Three turns that each add 1: the redriven one begins before the third commits, and commits after it."""
    user_id = accept("alice").user_id
    [a] = calls.begin(lease(user_id, 1))
    dead = {**settlement(a, 1), "failure": {"error": "E", "attempts": 0, "attempts_max": 1, "poison": "skip"}}
    assert [one["outcome"] for one in calls.settle(dead)] == ["dead"]
    accept("alice")
    [b] = calls.begin(lease(user_id, 5))
    services.database.rows("SELECT redrive_message(id) FROM messages WHERE state = 'dead'")
    [c] = calls.begin(lease(user_id, 4))
    assert c["turn"]["messages"][0]["seq"] == 1
    assert [one["outcome"] for one in calls.settle(settlement(b, 5, **plus_one(b)))] == ["committed"]
    assert [one["outcome"] for one in calls.settle(settlement(c, 5, **plus_one(c)))] == ["stale"]
    [again] = calls.begin(lease(user_id, 6))
    assert [one["outcome"] for one in calls.settle(settlement(again, 6, **plus_one(again)))] == ["committed"]
    assert count_of(services) == 2


def test_a_begin_that_straddles_a_commit_hands_out_one_instant(
    settings: Any, services: Services, calls: Calls, accept: Callable[..., Accepted]
) -> None:
    """Begin waits for the user's row; what it hands out then was all read after the wait."""
    user_id = accept("alice").user_id
    accept("alice")
    [a] = calls.begin(lease(user_id, 1))
    with psycopg.connect(settings.database_url) as slow:
        slow.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (user_id,))
        slow.execute("SELECT settle_turns(%s)", (psycopg.types.json.Jsonb([settlement(a, 1, **plus_one(a))]),))
        with pytest.raises(TimeoutError):
            _begin_within(settings, user_id, 0.3)
    [b] = calls.begin(lease(user_id, 2, taken_over=True))
    assert (b["turn"]["version"], b["turn"]["user"]["state"]) == (1, {"n": 1})
    assert [one["outcome"] for one in calls.settle(settlement(b, 2, **plus_one(b)))] == ["committed"]
    assert count_of(services) == 2


def _begin_within(settings: Any, user_id: object, seconds: float) -> None:
    """Begin as one who has to lock; raise TimeoutError when that takes longer."""
    with psycopg.connect(settings.database_url, autocommit=True) as other:
        other.execute(f"SET lock_timeout = '{int(seconds * 1000)}ms'")
        item = psycopg.types.json.Jsonb([lease(str(user_id), 2, taken_over=True)])
        row = other.execute("SELECT begin_turns(%s) -> 0 ->> 'sqlstate'", (item,)).fetchone()
        if row == ("55P03",):
            raise TimeoutError


CHANGES: dict[str, tuple[str, bool]] = {
    "a pause": ("SELECT pause_user(%s)", False),
    "an escalation": ("SELECT escalate_session(%s)", False),
    "an end": ("SELECT request_session_end(%s)", False),
    "a resume": ("SELECT resume_user(%s)", False),
    "a hand-back": ("SELECT hand_back_session(%s)", False),
}


@pytest.mark.parametrize(("change", "makes_stale"), CHANGES.values(), ids=CHANGES.keys())
def test_what_changes_no_state_makes_no_turn_stale(
    services: Services, calls: Calls, accept: Callable[..., Accepted], change: str, makes_stale: bool
) -> None:
    user_id = accept("alice").user_id
    [a] = calls.begin(lease(user_id))
    accept("alice")
    services.database.rows(change, (user_id,))
    [settled] = calls.settle(settlement(a))
    assert settled["outcome"] == ("stale" if makes_stale else "committed")


def test_a_stale_turn_runs_again_and_no_attempt_is_counted(
    services: Services, calls: Calls, accept: Callable[..., Accepted]
) -> None:
    user_id = accept("alice").user_id
    [a] = calls.begin(lease(user_id))
    services.database.rows("UPDATE users SET version = version + 1")
    [stale] = calls.settle(settlement(a, goes_on=True))
    assert (stale["outcome"], stale["next"]["turn"]["messages"][0]["attempts"]) == ("stale", 0)
    [settled] = calls.settle(settlement(stale["next"]))
    assert settled["outcome"] == "committed"


@pytest.mark.parametrize("read", [lambda turn: turn.history(), lambda turn: turn.tool_output("x")])
def test_a_turn_ends_at_the_first_read_of_what_has_changed_and_runs_again(
    services: Services, settings: Settings, accept: Callable[..., Accepted], rows: Rows, read: Callable[[Turn], object]
) -> None:
    runs: list[str] = []

    def handle(turn: Turn) -> str:
        runs.append("began")
        if len(runs) == 1:
            services.database.rows("UPDATE users SET version = version + 1")
        read(turn)
        runs.append("read")
        return "answered"

    message = accept("alice")
    work_off(services, settings, handle)
    assert runs == ["began", "began", "read"]
    assert rows.states(message.user_id) == ["processed"]
    assert rows.message(message.message_id).attempts == 0


def test_an_outage_while_a_handler_reads_is_no_attempt(
    services: Services, settings: Settings, accept: Callable[..., Accepted], rows: Rows
) -> None:
    runs: list[str] = []

    def handle(turn: Turn) -> str:
        runs.append(turn.message.text)
        if len(runs) == 1:
            raise StoreUnavailable("planted")
        return "answered"

    message = accept("alice")
    work_off(services, settings, handle)
    assert len(runs) == 2
    assert rows.message(message.message_id).attempts == 0
