"""Events, echoes, edits and opt-outs: lines of a user's order that are no messages."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.deliveries import Delivery, IdentityChange, Kind
from onelane.errors import BacklogFull
from onelane.gathering import Gatherer
from onelane.inbox.intake import Intake
from onelane.lanes.enqueueing import Enqueueing
from onelane.telemetry.counters import counters
from tests.calls import Calls, Item, delivery, lease, settlement
from tests.conftest import LogLines, deliver
from tests.rows import Rows

HAPPENED: Item = {"kind": "event", "event": "reaction", "parts": {"emoji": "+1"}, "quoted": "m1"}


@pytest.fixture
def calls(services: Services) -> Calls:
    return Calls(services.database)


def happens(nr: int, sender: str = "alice", **what: Any) -> Item:
    """Make an event."""
    return {**delivery(sender, f"e{nr}", "", kind="event", event="reaction"), **what}


def echo(nr: int, sender: str = "alice", **what: Any) -> Item:
    """Make a line that a colleague wrote past us."""
    return delivery(sender, f"o{nr}", "leave it to me", kind="echo", **what)


def works(calls: Calls, user_id: str, fence: int = 1, **effects: Any) -> list[Item]:
    """Work all off that waits; return the turns."""
    turns = []
    while (begun := calls.begin(lease(user_id, fence))[0])["outcome"] == "turn":
        turns.append(begun["turn"])
        calls.settle(settlement(begun, fence, **effects))
    return turns


def wants_events(services: Services, *, wants: bool = True) -> None:
    services.database.rows("UPDATE channel_policies SET wants_events = %s WHERE channel = 'demo'", (wants,))


def history(services: Services, user_id: str) -> list[tuple[str, str, str]]:
    """Return the lines of a user's history, as sessions show them."""
    sessions = services.database.rows("SELECT id FROM conversation_sessions WHERE user_id = %s ORDER BY id", (user_id,))
    lines = [line for one in sessions for line in services.sessions.history(one.id, 100)]
    return [(line.role, line.event or "", line.text) for line in lines]


def test_an_event_that_no_bot_asked_for_is_terminal_takes_a_number_and_lies_in_the_open_session(
    services: Services, calls: Calls, rows: Rows
) -> None:
    first, before = calls.accept(delivery("alice", "m1"), happens(1))
    assert (before["seq"], before["is_waiting"]) == (2, False)
    works(calls, first["user_id"])
    during, second = calls.accept(happens(2, **HAPPENED), delivery("alice", "m2"))
    assert (during["seq"], second["seq"], second["is_waiting"]) == (3, 4, True)
    assert [one["messages"][0]["seq"] for one in works(calls, first["user_id"])] == [4]
    lines = services.database.rows("SELECT seq, kind, event, session_id, parts, quoted FROM messages ORDER BY seq")
    assert [(line.seq, line.kind) for line in lines] == [(1, "message"), (2, "event"), (3, "event"), (4, "message")]
    assert lines[1].session_id is None, "none was open when it came"
    assert lines[2].session_id == lines[0].session_id == lines[3].session_id
    assert (lines[2].parts, lines[2].quoted) == ({"emoji": "+1"}, "m1")
    assert rows.anomalies() == []


def test_an_event_after_the_session_is_over_lies_outside_it_and_opens_none(services: Services, calls: Calls) -> None:
    [first] = calls.accept(delivery("alice", "m1", now="2026-01-01T10:00:00Z"))
    works(calls, first["user_id"])
    calls.accept(happens(1, now="2026-01-02T10:00:00Z"))
    assert services.database.rows("SELECT session_id FROM messages WHERE kind = 'event'")[0].session_id is None
    assert len(services.database.rows("SELECT FROM conversation_sessions")) == 1


def test_an_event_that_the_bot_wants_waits_its_turn_and_opens_a_session(services: Services, calls: Calls) -> None:
    wants_events(services)
    accepted, _ = calls.accept(happens(1, closes=True, **HAPPENED), delivery("alice", "m1"))
    assert accepted["is_waiting"]
    event, message = works(calls, accepted["user_id"])
    told = event["messages"][0]
    assert (told["kind"], told["event"], told["quoted"]) == ("event", "reaction", "m1")
    assert told["parts"] == {"emoji": "+1"}
    assert event["session"]["id"] == message["session"]["id"]


def test_a_full_backlog_refuses_messages_and_no_event_that_makes_no_turn(services: Services, calls: Calls) -> None:
    full: Item = {"backlog_max": 1}
    answers = calls.accept(delivery("alice", "m1", **full), happens(1, **full), delivery("alice", "m2", **full))
    assert [one["outcome"] for one in answers] == ["accepted", "accepted", "full"]
    assert calls.accept(delivery("alice", "m3", **full), happens(2, **full))[1]["outcome"] == "skipped", "order holds"
    wants_events(services)
    assert calls.accept(happens(3, **full))[0]["outcome"] == "full"


def test_who_publishes_policies_without_knowing_the_handler_leaves_its_events_as_they_are(
    services: Services, settings: Any
) -> None:
    policy = settings.policies[0].model_dump(mode="json")

    def published(**changes: Any) -> bool:
        services.database.rows("SELECT publish_policy(%s)", (Jsonb({**policy, **changes}),))
        wants: bool = services.database.rows("SELECT wants_events FROM channel_policies WHERE channel = 'demo'")[0][0]
        return wants

    assert [published(), published(wants_events=True), published(idle_timeout_s=7), published(wants_events=False)] == [
        *(False, True, True, False)
    ]


@pytest.mark.parametrize("size", [100, 4_000], ids=["small", "over 1 kB"])
def test_all_that_an_adapter_understood_comes_to_the_turn_and_stays_through_death_and_redrive(
    services: Services, calls: Calls, rows: Rows, size: int
) -> None:
    rich: Item = {
        "raw": {"from": "x" * size},
        "parts": {"location": {"lat": 1.5}},
        "author": {"id": "bob", "name": "Bob"},
        "mentioned": True,
        "repairs": ["nul"],
        "quoted": "m0",
        "route": {"from": "+1"},
        "attachments": [{"id": "7", "kind": "voice"}],
    }
    [accepted] = calls.accept(delivery("alice", "m1", **rich))
    [begun] = calls.begin(lease(accepted["user_id"]))
    told = begun["turn"]["messages"][0]
    assert {name: told[name] for name in rich} == rich
    assert len(services.database.rows("SELECT FROM payloads")) == (size > 1_024)
    dead = {**settlement(begun), "failure": {"error": "E", "attempts": 0, "attempts_max": 1, "poison": "skip"}}
    del dead["effects"]
    assert calls.settle(dead)[0]["outcome"] == "dead"
    rows.redrive(UUID(accepted["message_id"]))
    [again] = calls.begin(lease(accepted["user_id"], 2))
    assert again["turn"]["messages"][0] == told


def test_edits_and_deletions_change_what_history_shows_and_not_what_the_handler_gets(
    services: Services, calls: Calls
) -> None:
    first, *_ = calls.accept(
        delivery("alice", "m1", "won"),
        delivery("alice", "m2", "too"),
        happens(1, event="edited", quoted="m1", text="one"),
    )
    assert [turn["messages"][0]["text"] for turn in works(calls, first["user_id"])] == ["won", "too"]
    calls.accept(
        happens(2, event="edited", quoted="m2", text="two"),
        happens(3, event="deleted", quoted="m1"),
        happens(4, event="edited", quoted="unknown", text="x"),
    )
    assert history(services, first["user_id"])[:2] == [("user", "", ""), ("user", "", "two")]
    kept = services.database.rows("SELECT text FROM messages WHERE kind = 'message' ORDER BY seq")
    assert [row.text for row in kept] == ["won", "too"]


def test_nobody_edits_or_deletes_what_another_user_wrote(services: Services, calls: Calls) -> None:
    first, _ = calls.accept(delivery("alice", "m1", "mine"), happens(1, "bob", event="deleted", quoted="m1"))
    works(calls, first["user_id"])
    assert history(services, first["user_id"]) == [("user", "", "mine")]


def test_opting_out_is_kept_and_lifted_by_the_user(calls: Calls, rows: Rows) -> None:
    [out] = calls.accept(happens(1, event="opted_out"))
    since = rows.user(UUID(out["user_id"])).opted_out_at
    assert since is not None
    calls.accept(happens(2, event="opted_out"))
    assert rows.user(UUID(out["user_id"])).opted_out_at == since
    calls.accept(happens(3, event="opted_in"))
    assert rows.user(UUID(out["user_id"])).opted_out_at is None
    calls.accept(happens(1, event="opted_out"))
    assert rows.user(UUID(out["user_id"])).opted_out_at is None, "delivered again"


def status(services: Services, user_id: str) -> list[str]:
    found = services.database.rows(
        "SELECT status FROM conversation_sessions WHERE user_id = %s ORDER BY id", (user_id,)
    )
    return [row.status for row in found]


def test_an_echo_hands_the_open_session_over_at_once(services: Services, calls: Calls) -> None:
    [first] = calls.accept(delivery("alice", "m1"))
    [begun] = calls.begin(lease(first["user_id"]))
    [said] = calls.accept(echo(1))
    assert not said["is_waiting"]
    calls.settle(settlement(begun, replies=[{"text": "too late"}]))
    assert status(services, first["user_id"]) == ["escalated"]
    assert [line for line in history(services, first["user_id"]) if line[0] == "agent"] == [
        ("agent", "", "leave it to me")
    ]
    assert services.database.rows("SELECT failure FROM messages WHERE state = 'withheld'")[0].failure == "escalated"


def test_an_echo_to_somebody_without_a_session_opens_one_for_the_human(services: Services, calls: Calls) -> None:
    [said] = calls.accept(echo(1))
    assert (said["is_waiting"], status(services, said["user_id"])) == (False, ["escalated"])
    calls.accept(delivery("alice", "m1"))
    [turn] = works(calls, said["user_id"])
    assert turn["session"]["status"] == "escalated"
    assert history(services, said["user_id"]) == [("agent", "", "leave it to me"), ("user", "", "hello")]


def test_an_echo_that_is_only_noted_hands_nothing_over(services: Services, calls: Calls) -> None:
    [first] = calls.accept(delivery("alice", "m1"))
    works(calls, first["user_id"])
    calls.accept(echo(1, on_echo="note"))
    assert status(services, first["user_id"]) == ["active"]
    assert history(services, first["user_id"])[-1][0] == "agent"


@pytest.mark.parametrize("is_ended", [True, False], ids=["after a noted end", "in a session that waits to be opened"])
def test_an_echo_behind_messages_of_an_earlier_session_waits_and_hands_over_its_own(
    services: Services, calls: Calls, is_ended: bool, rows: Rows
) -> None:
    [first] = calls.accept(delivery("alice", "m1", now="2026-01-01T10:00:00Z"))
    calls.begin(lease(first["user_id"]))
    later = {"now": "2026-01-01T10:05:00Z" if is_ended else "2026-01-02T10:00:00Z"}
    if is_ended:
        services.database.rows("SELECT request_session_end(%s, p_now => '2026-01-01T10:01:00Z')", (first["user_id"],))
    else:
        calls.accept(delivery("alice", "m2", **later))
    [said] = calls.accept(echo(1, **later))
    assert said["is_waiting"]
    turns = works(calls, first["user_id"])
    assert [turn["session"]["status"] for turn in turns] == ["active", *["escalated"] * (len(turns) - 1)]
    assert status(services, first["user_id"]) == ["ended", "escalated"]
    assert rows.anomalies() == []


def test_a_duplicate_with_other_content_keeps_the_first_and_says_so(calls: Calls, rows: Rows) -> None:
    [first] = calls.accept(delivery("alice", "m1", "one", content_hash=1))
    same, other, unknown = calls.accept(
        delivery("alice", "m1", "one", content_hash=1),
        delivery("alice", "m1", "two", content_hash=2),
        delivery("alice", "m1", "two"),
    )
    assert [one["differs"] for one in (same, other, unknown)] == [False, True, False]
    assert [line.text for line in rows.inbound(UUID(first["user_id"]))] == ["one"]


@pytest.fixture
def small(services: Services, settings: Settings) -> Iterator[Intake]:
    """Intake with room for one waiting message of a user."""
    gatherer = Gatherer(services.database.asks("accept"))
    limited, lanes = settings.model_copy(update={"backlog_max": 1}), Enqueueing(services.lanes)
    yield Intake(limited, gatherer, services.database.breaker, lanes)
    gatherer.close()


def test_where_a_provider_delivers_nothing_again_a_backlog_may_be_twice_as_long(small: Intake) -> None:
    first, second, third = (Delivery(senders=("alice",), external_id=f"m{nr}") for nr in range(3))
    small.accept("demo", [first])
    with pytest.raises(BacklogFull):
        small.accept("demo", [second])
    small.accept("demo", [second], redelivers=False)
    with pytest.raises(BacklogFull):
        small.accept("demo", [third], redelivers=False)


def test_what_is_accepted_is_counted_by_kind_and_a_differing_redelivery_is_named(
    services: Services, log_lines: LogLines
) -> None:
    lines = [Delivery(senders=("alice",), external_id=kind, kind=kind, text="one") for kind in Kind]
    change = IdentityChange(senders=("alice",), adds=("phone",), external_id="i")
    counters.take()
    accepted = deliver(services, [*lines, change])
    deliver(services, [lines[0], lines[1].model_copy(update={"text": "two"})])
    numbers = counters.take()
    assert {kind: numbers[f"onelane_accepted:{kind}"] for kind in ("message", "event", "echo", "identity")} == {
        **dict.fromkeys(("message", "event", "echo", "identity"), 1)
    }
    assert numbers["onelane_differing_redeliveries:"] == 1
    [differing] = [line for line in log_lines if line["event"] == "redelivery_differs"]
    assert differing["message_id"] == str(accepted[1].message_id)
    assert "two" not in str(differing)


def test_an_event_that_makes_no_turn_wakes_no_lane(services: Services) -> None:
    [told] = deliver(services, [Delivery(senders=("alice",), external_id="e", kind=Kind.EVENT)])
    assert not told.is_waiting
    assert services.lanes.scores([told.user_id]) == [None]
