"""Calls that take lists: each item is an island, and any list equals its items one by one."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onelane.bootstrap import Services
from onelane.config import Settings
from tests.calls import Calls, Item, delivery, failure, lease, settlement
from tests.conftest import LogLines
from tests.rows import Rows

SIXTEEN = 16
CHECK_VIOLATION = "23514"
NUL = "a\u0000b"
"""What jsonb refuses."""


@pytest.fixture
def calls(services: Services) -> Calls:
    return Calls(services.database)


def begun(calls: Calls, count: int = SIXTEEN) -> list[Item]:
    """Accept one message of each of `count` users, and begin their turns."""
    accepted = calls.accept(*(delivery(f"user {nr}", f"m{nr}") for nr in range(count)))
    return calls.begin(*(lease(one["user_id"]) for one in accepted))


@contextmanager
def holding(url: str, user_id: str) -> Iterator[None]:
    """Hold a user's row in another transaction."""
    with psycopg.connect(url) as other:
        other.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (user_id,))
        yield


def test_sixteen_users_are_accepted_begun_and_settled_in_one_call_each(rows: Rows, calls: Calls) -> None:
    turns = begun(calls)
    assert [one["outcome"] for one in turns] == ["turn"] * SIXTEEN
    settled = calls.settle(*(settlement(one, replies=[{"text": "yes"}]) for one in turns))
    assert [one["outcome"] for one in settled] == ["committed"] * SIXTEEN
    assert rows.answered() == SIXTEEN


def test_what_is_plain_in_a_list_is_settled_together_and_the_rest_by_itself(rows: Rows, calls: Calls) -> None:
    turns = begun(calls, 4)
    odd = settlement(turns[3], replies=[{"text": "yes"}], tool_calls=[{"name": "t", "output": 1}])
    settled = calls.settle(*(settlement(one, replies=[{"text": "yes"}]) for one in turns[:3]), odd)
    assert [(one["outcome"], len(one["outbox"])) for one in settled] == [("committed", 1)] * 4
    written = rows.ask(
        "SELECT count(DISTINCT m.xmin::text) AS all, count(DISTINCT m.xmin::text) FILTER (WHERE c.id IS NULL) AS plain"
        "  FROM messages m LEFT JOIN tool_calls c USING (user_id)"
    )
    assert (written.all, written.plain) == (2, 1)  # each block of its own writes under a number of its own


def test_of_a_user_who_is_twice_in_a_list_the_first_counts(calls: Calls) -> None:
    [turn, other] = begun(calls, 2)
    again = calls.settle(*(settlement(one, replies=[{"text": "yes"}]) for one in (turn, other, turn)))
    assert [one["outcome"] for one in again] == ["committed", "committed", "already"]


def test_a_locked_user_is_skipped_and_nobody_waits_for_it(settings: Settings, rows: Rows, calls: Calls) -> None:
    turns = begun(calls)
    locked = UUID(turns[7]["user_id"])
    with holding(settings.database_url, str(locked)):
        accepted = calls.accept(*(delivery(f"user {nr}", f"n{nr}") for nr in range(SIXTEEN)), waits=False)
        settled = calls.settle(*map(settlement, turns), waits=False)
        again = calls.begin(*(lease(one["user_id"], 2, taken_over=True) for one in turns), waits=False)
    for answers, else_ in ((accepted, "accepted"), (settled, "committed"), (again, "turn")):
        outcomes = [one["outcome"] for one in answers]
        assert outcomes == [*[else_] * 7, "skipped", *[else_] * 8]
    assert rows.user(locked).last_seq == 1


def test_after_a_skipped_message_no_later_one_of_that_user_is_accepted(settings: Any, calls: Calls) -> None:
    """Else the order of numbers would not be the order of the delivery."""
    [first] = calls.accept(delivery("alice", "m1"))
    other = psycopg.connect(settings.database_url)
    other.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (first["user_id"],))
    released = threading.Event()

    def release() -> None:
        other.close()
        released.set()

    answers = calls.accept(delivery("alice", "m2"), delivery("bob", "b1"), delivery("alice", "m3"), waits=False)
    release()
    assert released.is_set()
    assert [one["outcome"] for one in answers] == ["skipped", "accepted", "skipped"]
    assert [one["seq"] for one in calls.accept(delivery("alice", "m2"), delivery("alice", "m3"))] == [2, 3]


def test_after_a_skipped_message_of_a_new_user_no_later_one_under_the_same_name_is_accepted(
    settings: Settings, calls: Calls
) -> None:
    """Another transaction holds one of the names of the first; the second names the other alone."""
    first = delivery("alice", "m1", senders=["alice", "+336"])
    with psycopg.connect(settings.database_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('demo:+336', 0))")
        answers = calls.accept(first, delivery("bob", "b1"), delivery("alice", "m2"), waits=False)
    assert [one["outcome"] for one in answers] == ["skipped", "accepted", "skipped"]
    assert [one["seq"] for one in calls.accept(first, delivery("alice", "m2"))] == [1, 2]


def test_after_a_refused_message_that_names_its_user_anew_nothing_under_the_new_name_is_accepted(calls: Calls) -> None:
    calls.accept(delivery("alice", "m1"))
    answers = calls.accept(
        delivery("alice", "m2", senders=["alice", "+336"], backlog_max=1), delivery("+336", "m3", backlog_max=1)
    )
    assert [one["outcome"] for one in answers] == ["full", "skipped"]


def test_a_full_backlog_is_that_users_alone(calls: Calls) -> None:
    calls.accept(delivery("alice", "m1"))
    answers = calls.accept(
        delivery("alice", "m2", backlog_max=1), delivery("bob", "b1", backlog_max=1), delivery("alice", "m1")
    )
    assert [one["outcome"] for one in answers] == ["full", "accepted", "duplicate"]


REFUSED: dict[str, Callable[[Item], Item]] = {
    "what jsonb cannot hold as text": lambda one: {**settlement(one), "effects": {"replies": [{"text": None}]}},
    "a session of nobody": lambda one: {**settlement(one), "session_id": "00000000-0000-7000-8000-000000000000"},
    "a state that is no object": lambda one: settlement(one, user_state=[1]),
    "a reason that does not exist": lambda one: settlement(one, end="because"),
    "no number": lambda one: {**settlement(one), "fence": "one"},
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_an_item_that_postgres_refuses_fails_alone(
    services: Services, calls: Calls, make: Callable[[Item], Item]
) -> None:
    turns = begun(calls)
    items = [settlement(one, replies=[{"text": "yes"}]) for one in turns]
    items[3] = make(turns[3])
    answers = calls.settle(*items)
    assert [one["outcome"] for one in answers] == [*["committed"] * 3, "refused", *["committed"] * 12]
    assert len(answers[3]["sqlstate"]) == 5
    assert [one["outcome"] for one in calls.begin(lease(turns[3]["user_id"]))] == ["turn"]


def test_that_plain_turns_could_not_be_settled_together_is_told(calls: Calls, log_lines: LogLines) -> None:
    """What is settled one by one instead costs three times as much: a fault in there must not go unseen."""
    turns = begun(calls, 3)
    refused = settlement(turns[0], user_state=[1])
    calls.settle(refused, *(settlement(one, replies=[{"text": "yes"}]) for one in turns[1:]))
    [told] = [line for line in log_lines if line["event"] == "turns_not_settled_together"]
    assert told["sqlstate"] == CHECK_VIOLATION


def test_a_fenced_a_stale_and_a_paused_item_delay_nobody(services: Services, calls: Calls) -> None:
    turns = begun(calls)
    fenced, stale, paused = (turns[nr]["user_id"] for nr in (1, 2, 3))
    services.database.rows("UPDATE users SET fence = 9 WHERE id = %s", (fenced,))
    services.database.rows("UPDATE users SET version = 9 WHERE id = %s", (stale,))
    services.database.rows("SELECT pause_user(%s)", (paused,))
    answers = calls.settle(*(settlement(one, goes_on=True) for one in turns))
    assert [one["outcome"] for one in answers] == ["committed", "fenced", "stale", *["committed"] * 13]
    begins = calls.begin(*(lease(one["user_id"]) for one in turns))
    assert [one["outcome"] for one in begins][:4] == ["idle", "fenced", "turn", "paused"]


def test_every_answer_is_the_same_when_it_is_asked_again(calls: Calls) -> None:
    turns = begun(calls, 4)
    assert calls.begin(*(lease(one["user_id"]) for one in turns)) == [{**one, "hint": one["hint"]} for one in turns]
    commits = [settlement(turns[0], replies=[{"text": "yes"}]), failure(turns[1]), failure(turns[2], attempts_max=1)]
    parked = failure(turns[3], attempts_max=1, poison="park")
    first = calls.settle(*commits, parked)
    again = calls.settle(*commits, parked)
    assert [one["outcome"] for one in first] == ["committed", "retry", "dead", "paused"]
    assert [one["outcome"] for one in again] == ["already", "retry", "already", "paused"]
    assert [one["attempts"] for one in again][1::2] == [1, 1]


TABLES = {
    "users": "channel, sender, state, state_aside, last_seq, next_seq, waiting, version, fence, paused_at IS NULL",
    "user_aliases": "channel, alias",
    "conversation_sessions": "status, ended_reason, state, summary",
    "inbox": "seq, external_id, text, attempts, deaths, last_error",
    "messages": "seq, turn_seq, ordinal, direction, kind, state, channel, external_id, text, button, attachments,"
    " route, event, closes, parts, raw, has_payload, quoted, author, mentioned, repairs, traceparent, sent_at,"
    " attempts, deaths, last_error, batch_last, lease, end_at, failed_at IS NULL, failure, failure_code",
    "outbox": "turn_seq, ordinal, channel, state, requests, (SELECT text FROM messages m WHERE m.id = t.id)",
    "failures_to_tell": "word, code",
    "tool_calls": "name, output",
    "accepted_deliveries": "channel, external_id, seq",
}
"""What must be equal: everything but ids and times."""


def tables(services: Services) -> dict[str, list[str]]:
    """Read all tables, without ids and times, each row with its user's name."""
    found = {}
    for table, columns in TABLES.items():
        user = "(SELECT sender FROM users u WHERE u.id = t.user_id)" if table != "users" else "sender"
        rows = services.database.rows(f"SELECT {user} AS whose, {columns} FROM {table} t")
        found[table] = sorted(repr(tuple(row)) for row in rows)
    return found


def clear(services: Services) -> None:
    services.database.rows(f"TRUNCATE {', '.join(TABLES)} CASCADE")


PEOPLE = tuple(f"user {nr}" for nr in range(SIXTEEN))
ACTS = st.sampled_from(
    [
        "plain",
        "plain",
        "remember",
        "silent",
        "no way",
        "too long",
        "commit",
        "end",
        "fail",
        "die",
        "stale",
        "fenced",
        "refused",
    ]
)
Round = dict[str, str]
"""Of some people, what comes of a message that they send."""
HISTORIES = st.lists(st.dictionaries(st.sampled_from(PEOPLE), ACTS, min_size=1), min_size=1, max_size=8)


def play(calls: Calls, history: Sequence[Round]) -> dict[str, list[str]]:
    """Accept, begin and settle round by round, each a list of all who take part; return each person's outcomes."""
    outcomes: dict[str, list[str]] = {person: [] for person in PEOPLE}
    said: Counter[str] = Counter()
    for acts in history:
        people = list(acts)
        said.update(people)

        def noted(answers: list[Item], people: Sequence[str] = people) -> list[Item]:
            for person, answer in zip(people, answers, strict=True):
                outcomes[person].append(answer["outcome"])
            return answers

        users = noted(
            calls.accept(*(delivery(person, f"{person} {said[person]}", **EXTRA[acts[person]]) for person in people))
        )
        turns = noted(
            calls.begin(*(lease(one["user_id"], said[person]) for person, one in zip(people, users, strict=True)))
        )
        noted(
            calls.settle(
                *(SETTLE[acts[person]](turn, said[person]) for person, turn in zip(people, turns, strict=True))
            )
        )
    return outcomes


def one_by_one(history: Sequence[Round]) -> list[Round]:
    """Let the same happen to one person after the other, each alone."""
    return [{person: acts[person]} for person in PEOPLE for acts in history if person in acts]


FULL = {"text": "yes", "attachments": [{"url": "u"}], "parts": {"buttons": []}, "quoted": "q", "raw": {"a": 1}}
SETTLE: dict[str, Callable[[Item, int], Item]] = {
    "plain": lambda turn, fence: {
        **settlement(turn, fence, goes_on=True, replies=[FULL, {"text": "and"}]),
        "token": f"w:{fence}",
        "traceparent": "t",
    },
    "remember": lambda turn, fence: settlement(turn, fence, session_state={"n": fence}, user_state={"n": fence}),
    "silent": lambda turn, fence: settlement(turn, fence, replies=[]),
    "no way": lambda turn, fence: settlement(turn, fence, replies=[{"text": "yes", "failure": "no_route"}]),
    "too long": lambda turn, fence: settlement(
        turn, fence, replies=[{"text": "yes", "failure": "too_long", "failure_code": "1"}]
    ),
    "commit": lambda turn, fence: settlement(
        turn,
        fence,
        goes_on=True,
        replies=[{"text": "yes"}],
        tool_calls=[{"name": "t", "output": [fence]}],
        session_state={"n": fence},
        user_state={"n": fence},
    ),
    "end": lambda turn, fence: settlement(turn, fence, end="handler", summary="so far"),
    "fail": failure,
    "die": lambda turn, fence: failure(turn, fence, attempts_max=1, poison="apologise", apologies=[{"text": "sorry"}]),
    "stale": lambda turn, fence: {**settlement(turn, fence), "version": -1},
    "fenced": lambda turn, fence: settlement(turn, fence - 1 if fence > 1 else 0),
    "refused": lambda turn, fence: settlement(turn, fence, user_state=[]),
}


EXTRA: defaultdict[str, Item] = defaultdict(
    dict,
    {
        "plain": {
            "button": "b",
            "attachments": [{"url": "u"}],
            "route": {"number": "n"},
            "traceparent": "00",
            "sent_at": "2026-01-02T03:04:05Z",
        },
        "silent": {"parts": {"place": 1}, "quoted": "q", "author": {"name": "a"}, "mentioned": True, "raw": {"a": 1}},
    },
)
"""What is special about the message that is settled so."""


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=HISTORIES)
@pytest.mark.slow
def test_any_interleaving_in_lists_equals_the_items_one_by_one(services: Services, history: list[Round]) -> None:
    calls = Calls(services.database)
    clear(services)
    outcomes, alone = play(calls, one_by_one(history)), tables(services)
    clear(services)
    assert play(calls, history) == outcomes
    assert tables(services) == alone
