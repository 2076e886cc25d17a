"""Several messages in one turn: who is in, what is thrown away, and that nobody is left out, as Postgres decides it."""

from itertools import count
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from onelane.bootstrap import Services
from onelane.postgres.db import Database
from tests.calls import Calls, Item, delivery, failure, lease, settlement

MOST = 20


class Batches:
    """One user's batches, on a channel that makes them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._calls = Calls(database)
        self._ids = count()
        self.policy()

    def policy(self, batch_max: int = MOST, **more: object) -> None:
        policy = {
            "channel": "demo",
            "idle_timeout_s": 3600,
            "escalation_timeout_s": 3600,
            "batch_max": batch_max,
            **more,
        }
        self.database.rows("SELECT publish_policy(%s)", (Jsonb(policy),))

    def accept(self, *texts: str, **extra: object) -> list[Item]:
        items = [delivery("alice", f"m{next(self._ids)}", text, **extra) for text in texts]
        return self._calls.accept(*items)

    @property
    def user_id(self) -> UUID:
        row = self.database.row("SELECT id FROM users")
        assert row
        return UUID(str(row.id))

    def begin(self, fence: int = 1, **extra: object) -> Item:
        [begun] = self._calls.begin(lease(self.user_id, fence, **extra))
        return begun

    def settle(self, begun: Item, fence: int = 1, *, interrupt: Item | None = None, **more: Any) -> Item:
        item = settlement(begun, fence, **more)
        [settled] = self._calls.settle({**item, **({"interrupt": interrupt} if interrupt else {})})
        return settled

    def fail(self, begun: Item, **more: Any) -> Item:
        item = failure(begun, **more)
        item["failure"]["attempts"] = begun["turn"]["messages"][0]["attempts"]
        [settled] = self._calls.settle(item)
        return settled

    def call(self, function: str, begun: Item, **more: object) -> Item:
        item = {**settlement(begun), **more}
        row = self.database.row(f"SELECT {function}(%s) AS answer", (Jsonb(item),))
        assert row
        answer: Item = row.answer
        return answer


@pytest.fixture
def batches(services: Services) -> Batches:
    return Batches(services.database)


def texts(begun: Item) -> list[str]:
    return [message["text"] for message in begun["turn"]["messages"]]


def test_what_waits_together_is_one_turn(batches: Batches) -> None:
    batches.accept("one", "two", "three")
    begun = batches.begin()
    assert texts(begun) == ["one", "two", "three"]
    assert batches.settle(begun, replies=[{"text": "all"}])["outcome"] == "committed"
    lines = batches.database.rows("SELECT seq, direction, turn_seq, text FROM messages ORDER BY turn_seq, ordinal")
    assert [(row.direction, row.turn_seq, row.text) for row in lines] == [
        ("in", 1, "one"),
        ("in", 2, "two"),
        ("in", 3, "three"),
        ("out", 3, "all"),
    ]
    assert batches.begin()["outcome"] == "idle"


def test_a_channel_without_batches_takes_one(batches: Batches) -> None:
    batches.policy(batch_max=1)
    batches.accept("one", "two")
    assert texts(batches.begin()) == ["one"]


def test_a_channel_without_batches_pays_no_lock_and_no_write_for_them(batches: Batches) -> None:
    batches.policy(batch_max=1)
    batches.accept("one", "two")
    batches.settle(batches.begin())
    [session] = batches.database.rows("SELECT id FROM conversation_sessions")
    rows = (
        "SELECT u.ctid::text AS user_at, u.xmax::text AS user_lock, i.ctid::text AS line_at, i.xmax::text AS line_lock"
        "  FROM users u JOIN inbox i ON i.user_id = u.id"
    )
    before = batches.database.rows(rows)
    assert texts(batches.begin(hint=str(session.id))) == ["two"]
    assert batches.database.rows(rows) == before


def test_who_is_in_is_frozen_when_the_turn_begins(batches: Batches) -> None:
    batches.accept("one")
    first = batches.begin()
    batches.accept("two")
    assert texts(batches.begin()) == texts(first) == ["one"]
    batches.settle(first)
    assert texts(batches.begin()) == ["two"]


def test_a_batch_is_bounded(batches: Batches) -> None:
    batches.policy(batch_max=3)
    batches.accept(*"abcd")
    assert texts(batches.begin()) == ["a", "b", "c"]


@pytest.mark.parametrize("closing", [{"closes": True}, {"kind": "event", "event": "reaction"}])
def test_what_closes_a_batch_stands_alone(batches: Batches, closing: Item) -> None:
    batches.policy(wants_events=True)
    batches.accept("one")
    batches.accept("command", **closing)
    batches.accept("two", "three")
    seen = []
    for _ in range(3):
        begun = batches.begin()
        seen.append(texts(begun))
        batches.settle(begun)
    assert seen == [["one"], ["command"], ["two", "three"]]


def test_a_border_of_sessions_is_a_border_of_batches(batches: Batches) -> None:
    batches.accept("yesterday", now="2026-03-01T10:00:00Z")
    batches.accept("today", "too", now="2026-03-01T12:00:00Z")
    first = batches.begin()
    assert texts(first) == ["yesterday"]
    batches.settle(first)
    assert texts(batches.begin()) == ["today", "too"]


def test_an_end_that_is_noted_on_a_message_closes_its_batch(batches: Batches) -> None:
    batches.accept("one", "two")
    batches.database.rows("SELECT request_session_end(%s)", (batches.user_id,))
    batches.accept("three")
    first = batches.begin()
    assert texts(first) == ["one", "two"]
    batches.settle(first)
    assert texts(batches.begin()) == ["three"]
    sessions = batches.database.rows("SELECT ended_reason FROM conversation_sessions ORDER BY started_at")
    assert [row.ended_reason for row in sessions] == ["operator", None]


INTERRUPT = {"superseded": 0, "most": 3}


def test_a_newer_message_supersedes_and_the_next_turn_answers_both(batches: Batches) -> None:
    batches.accept("one")
    begun = batches.begin()
    batches.accept("two")
    settled = batches.settle(begun, interrupt=INTERRUPT, goes_on=True, replies=[{"text": "too early"}])
    assert settled["outcome"] == "superseded"
    assert texts(settled["next"]) == ["one", "two"]
    assert settled["next"]["turn"]["superseded"] == 1
    assert batches.database.rows("SELECT FROM messages") == []


def test_superseded_once_more_says_the_same_and_counts_once(batches: Batches) -> None:
    batches.accept("one")
    begun = batches.begin()
    batches.accept("two")
    answers = [batches.settle(begun, interrupt=INTERRUPT, goes_on=True) for _ in range(2)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("is_first", [True, False])
def test_who_throws_a_turn_away_has_written_also_where_it_was_thrown_away_before(
    batches: Batches, is_first: bool
) -> None:
    batches.accept("one")
    old, new = batches.begin(fence=1), batches.begin(fence=2)
    batches.accept("two")
    if not is_first:
        old = batches.settle(old, fence=1, interrupt=INTERRUPT, goes_on=True)["next"]
    assert batches.settle(new, fence=2, interrupt=INTERRUPT)["outcome"] == "superseded"
    assert batches.settle(old, fence=1)["outcome"] == "fenced"


def test_who_was_cancelled_for_what_does_not_join_has_written(batches: Batches) -> None:
    batches.accept("one")
    old, new = batches.begin(fence=1), batches.begin(fence=2)
    assert batches.settle(new, fence=2, interrupt={**INTERRUPT, "is_cancelled": True})["outcome"] == "stale"
    assert batches.settle(old, fence=1)["outcome"] == "fenced"


@pytest.mark.parametrize("what", [{"closes": True}, {"kind": "event", "event": "reaction"}])
def test_what_does_not_join_supersedes_nothing(batches: Batches, what: Item) -> None:
    batches.policy(wants_events=True)
    batches.accept("one")
    begun = batches.begin()
    batches.accept("/stop", **what)
    assert batches.settle(begun, interrupt=INTERRUPT)["outcome"] == "committed"


def test_what_a_full_batch_cannot_take_in_supersedes_nothing(batches: Batches) -> None:
    batches.policy(batch_max=2)
    batches.accept("one", "two")
    begun = batches.begin()
    batches.accept("three")
    settled = batches.settle(begun, interrupt=INTERRUPT, goes_on=True)
    assert settled["outcome"] == "committed"
    assert texts(settled["next"]) == ["three"]


def test_a_batch_that_was_widened_beyond_what_begins_together_never_shrinks(batches: Batches) -> None:
    batches.policy(batch_max=2)
    batches.accept("one")
    begun = batches.begin()
    batches.accept("two", "three")
    begun["turn"]["messages"] += batches.call("claim_newer", begun)["messages"]
    batches.accept("four")
    assert batches.settle(begun, interrupt=INTERRUPT)["outcome"] == "committed"
    assert texts(batches.begin()) == ["four"]


def test_who_writes_all_the_time_is_answered_after_so_many(batches: Batches) -> None:
    batches.accept("0")
    outcomes = []
    for number in range(1, 5):
        begun = batches.begin()
        batches.accept(str(number))
        interrupt = {"superseded": begun["turn"]["superseded"], "most": 3}
        outcomes.append(batches.settle(begun, interrupt=interrupt)["outcome"])
    assert outcomes == ["superseded", "superseded", "superseded", "committed"]
    assert texts(batches.begin()) == ["4"]


def test_newer_messages_join_the_running_batch_and_are_settled_with_it(batches: Batches) -> None:
    batches.policy(batch_max=1)
    batches.accept("one")
    begun = batches.begin()
    batches.accept("two", "three")
    claimed = batches.call("claim_newer", begun)
    assert [message["text"] for message in claimed["messages"]] == ["two", "three"]
    begun["turn"]["messages"] += claimed["messages"]
    assert batches.call("claim_newer", begun) == {"outcome": "claimed", "messages": []}
    assert batches.settle(begun)["outcome"] == "committed"
    assert batches.begin()["outcome"] == "idle"


def test_what_was_claimed_comes_again_after_a_crash(batches: Batches) -> None:
    batches.policy(batch_max=1)
    batches.accept("one")
    begun = batches.begin()
    batches.accept("two")
    batches.call("claim_newer", begun)
    assert texts(batches.begin(fence=2, taken_over=True)) == ["one", "two"]
    assert batches.call("claim_newer", begun)["outcome"] == "fenced"
    assert batches.settle(begun)["outcome"] == "fenced"


def test_of_a_poisonous_batch_only_the_guilty_one_dies(batches: Batches) -> None:
    batches.accept("good", "bad", "fine")
    outcomes = [batches.fail(batches.begin(), attempts_max=2)["outcome"] for _ in range(2)]
    alone = []
    for _ in range(3):
        begun = batches.begin()
        alone.append(texts(begun))
        outcomes.append(
            batches.fail(begun, attempts_max=2)["outcome"]
            if texts(begun) == ["bad"]
            else batches.settle(begun)["outcome"]
        )
    assert alone == [["good"], ["bad"], ["fine"]]
    assert outcomes == ["retry", "retry", "committed", "dead", "committed"]


def test_who_runs_alone_to_be_judged_is_thrown_away_for_none_of_its_batch_and_takes_none_in(batches: Batches) -> None:
    batches.accept("good", "bad")
    batches.fail(batches.begin(), attempts_max=1)
    begun = batches.begin()
    assert batches.call("claim_newer", begun) == {"outcome": "claimed", "messages": []}
    assert batches.settle(begun, interrupt=INTERRUPT)["outcome"] == "committed"
    assert texts(batches.begin()) == ["bad"]


def test_a_step_is_kept_for_its_batch_and_forgotten_with_it(batches: Batches) -> None:
    batches.accept("one")
    begun = batches.begin()
    asked = {"key": "model 1"}
    assert batches.call("keep_step", begun, **asked)["is_known"] is False
    assert batches.call("keep_step", begun, **asked, value={"a": 1})["value"] == {"a": 1}
    assert batches.call("keep_step", begun, **asked, value={"a": 2})["value"] == {"a": 1}
    again = batches.begin(fence=2, taken_over=True)
    assert batches.call("keep_step", again, **asked, fence=2) == {
        "outcome": "kept",
        "is_known": True,
        "value": {"a": 1},
    }
    assert batches.call("keep_step", begun, **asked, value={"a": 3})["outcome"] == "fenced"
    batches.settle(again, fence=2)
    assert batches.database.rows("SELECT FROM steps") == []


def test_a_batch_that_was_frozen_before_a_merge_is_a_batch_no_more(batches: Batches) -> None:
    batches.accept("hers")
    loser = batches.user_id
    batches.accept("hers too")
    begun = batches.begin()
    batches.call("keep_step", begun, key="model 1", value="to hers")
    [his] = Calls(batches.database).accept(delivery("bob", "m9", "his"))
    batches.database.rows("SELECT merge_users(%s, %s)", (his["user_id"], loser))
    [merged] = Calls(batches.database).begin(lease(his["user_id"], 2))
    assert texts(merged) == ["his", "hers", "hers too"]
    assert Calls(batches.database).settle(settlement(merged, 2))[0]["outcome"] == "committed"
    assert batches.database.rows("SELECT FROM steps") == []


def test_a_batch_that_is_divided_runs_on_at_once(batches: Batches) -> None:
    batches.accept("good", "bad")
    assert [batches.fail(batches.begin(), attempts_max=2)["attempts"] for _ in range(2)] == [1, 0]


def test_a_widened_batch_gets_no_answer_to_the_old_question(batches: Batches) -> None:
    batches.accept("one")
    begun = batches.begin()
    batches.call("keep_step", begun, key="model 1", value="to one")
    batches.accept("two")
    widened = batches.settle(begun, interrupt=INTERRUPT, goes_on=True)["next"]
    assert batches.call("keep_step", widened, key="model 1")["is_known"] is False
    assert batches.database.rows("SELECT FROM steps") == []


def test_history_shows_which_messages_were_one_batch(batches: Batches) -> None:
    batches.accept("one", "two")
    batches.settle(batches.begin())
    batches.accept("three")
    batches.settle(batches.begin())
    rows = batches.database.rows("SELECT batch_last FROM messages WHERE direction = 'in' ORDER BY seq")
    assert [row.batch_last for row in rows] == [2, None, None]


def test_a_death_is_counted_once_also_when_who_counted_it_gave_the_lane_back(batches: Batches) -> None:
    batches.accept("one")
    for fence, died in ((2, "a:1"), (3, "a:1"), (4, "c:3")):
        begun = batches.begin(fence=fence, taken_over=True, token=f"b:{fence}", taken_from=died)
    assert begun["turn"]["messages"][0]["deaths"] == 2


def test_a_take_over_is_kept_once_with_both_leases_and_the_message_that_waited(batches: Batches) -> None:
    [accepted] = batches.accept("one")
    for _ in range(2):  # an answer may be lost
        batches.begin(fence=2, taken_over=True, token="b:2", taken_from="a:1")
    [row] = batches.database.rows("SELECT * FROM takeovers")
    assert (str(row.message_id), row.fence, row.token, row.taken_from) == (accepted["message_id"], 2, "b:2", "a:1")
