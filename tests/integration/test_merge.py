"""Two users that are one person become one by command, whatever both are doing."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.errors import LaneBusy
from onelane.lanes.releases import Released
from onelane.operations.merging import held
from onelane.operations.users import sessions_of
from tests.calls import Calls, Item, delivery, lease, settlement
from tests.conftest import Accept, RunWorker, deliver, eventually
from tests.duties import duties_of
from tests.integration.test_lines import echo, works
from tests.lane_state import due_ms, now_ms
from tests.rows import Rows

LONG_TTL_S = 30
Story = Callable[[Services, Calls, str, str], None]


@pytest.fixture
def calls(services: Services) -> Calls:
    return Calls(services.database)


def merged(services: Services, winner: str, loser: str) -> list[int] | None:
    """Merge in Postgres; return the new numbers of what moved."""
    [row] = services.database.rows("SELECT merge_users(%s, %s) AS moved", (winner, loser))
    return None if row.moved is None else [one["seq"] for one in row.moved]


def both(calls: Calls) -> tuple[str, str]:
    """Let alice and bob write in turn: two messages each."""
    answers = calls.accept(*(delivery(who, f"{who}{nr}", f"{who} {nr}") for nr in (1, 2) for who in ("alice", "bob")))
    return answers[0]["user_id"], answers[1]["user_id"]


def test_what_waits_of_the_loser_comes_behind_the_winners_and_names_lead_to_the_winner(
    services: Services, calls: Calls, rows: Rows
) -> None:
    alice, bob = both(calls)
    assert merged(services, alice, bob) == [3, 4]
    [later] = calls.accept(delivery("bob", "bob3", "bob 3"))
    assert (later["user_id"], later["seq"]) == (alice, 5)
    texts = [turn["messages"][0]["text"] for turn in works(calls, alice)]
    assert texts == ["alice 1", "alice 2", "bob 1", "bob 2", "bob 3"]
    assert rows.shape(UUID(alice)) == [([1, 2, 3, 4, 5], None)]
    assert calls.begin(lease(bob))[0]["outcome"] == "idle"
    assert rows.anomalies() == []


def test_a_delivery_of_the_loser_that_comes_again_is_found_where_it_is_now(services: Services, calls: Calls) -> None:
    alice, bob = both(calls)
    merged(services, alice, bob)
    [again] = calls.accept(delivery("bob", "bob1"))
    assert (again["outcome"], again["user_id"], again["seq"], again["is_waiting"]) == ("duplicate", alice, 3, True)


def test_the_losers_session_ends_and_its_history_is_listed_with_the_winners(
    services: Services, calls: Calls, rows: Rows
) -> None:
    alice, bob = both(calls)
    for user in (alice, bob):
        works(calls, user, user_state={"who": user[-4:], user: 1})
    merged(services, alice, bob)
    assert rows.shape(UUID(bob)) == [([1, 2], "operator")]
    assert rows.shape(UUID(alice)) == [([1, 2], None)]
    assert rows.user(UUID(alice)).state == {"who": alice[-4:], alice: 1, bob: 1}
    assert [one.status for one in sessions_of(services.database, UUID(alice), 10)] == ["active", "ended"]
    assert [one.status for one in sessions_of(services.database, UUID(alice), 1)] == ["active"]


def test_turns_that_run_while_users_are_merged_commit_nothing_of_what_they_read(
    services: Services, calls: Calls, rows: Rows
) -> None:
    alice, bob = both(calls)
    begun = calls.begin(lease(alice), lease(bob))
    merged(services, alice, bob)
    assert [one["outcome"] for one in calls.settle(*map(settlement, begun))] == ["stale", "already"]
    works(calls, alice)
    assert rows.shape(UUID(alice)) == [([1, 2, 3, 4], None)]


def test_a_merge_asked_again_does_nothing_and_some_are_impossible(services: Services, calls: Calls) -> None:
    alice, bob = both(calls)
    [carol, other] = calls.accept(delivery("carol", "c1"), {**delivery("dave", "d1"), "channel": "other"})
    assert merged(services, alice, bob) == [3, 4]
    assert merged(services, alice, bob) == []
    for winner, loser in ((bob, alice), (carol["user_id"], bob), (alice, alice), (alice, other["user_id"])):
        assert merged(services, winner, loser) is None


def test_conflicts_with_others_are_the_winners_and_the_one_between_them_is_over(
    services: Services, calls: Calls
) -> None:
    alice, bob = both(calls)
    [carol] = calls.accept(delivery("carol", "c1"))
    calls.accept(
        {**delivery("alice", "x1"), "senders": ["alice", "bob"]}, {**delivery("bob", "x2"), "senders": ["bob", "carol"]}
    )
    merged(services, alice, bob)
    pairs = services.database.rows("SELECT user_id::text, other_id::text FROM identity_conflicts")
    assert {tuple(pair) for pair in pairs} == {(alice, carol["user_id"]), (carol["user_id"], alice)}


@pytest.mark.parametrize("act", ["pause_user(%s)", "escalate_session(%s)"])
def test_who_was_paused_or_had_a_human_still_is_and_has(services: Services, calls: Calls, rows: Rows, act: str) -> None:
    alice, bob = both(calls)
    for user in (alice, bob):
        works(calls, user)
    services.database.rows(f"SELECT {act}", (bob,))
    merged(services, alice, bob)
    calls.accept(delivery("bob", "bob3"))
    [begun] = calls.begin(lease(alice))
    assert begun["outcome"] == "paused" or begun["turn"]["session"]["status"] == "escalated"


def at(hours: float) -> str:
    """Return an instant of the stories below; both timeouts are 7 hours."""
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)).isoformat()


def ends(services: Services, user_id: str, hours: float) -> None:
    services.database.rows("SELECT request_session_end(%s, p_now => %s)", (user_id, at(hours)))


def escalates(services: Services, user_id: str, hours: float) -> None:
    services.database.rows("SELECT escalate_session(%s, p_now => %s)", (user_id, at(hours)))


def the_winners_session_is_open(services: Services, calls: Calls, alice: str, bob: str) -> None:
    escalates(services, bob, 1)


def the_winners_session_ended(services: Services, calls: Calls, alice: str, bob: str) -> None:
    escalates(services, bob, 1)
    ends(services, alice, 2)


def the_winners_session_is_over(services: Services, calls: Calls, alice: str, bob: str) -> None:
    calls.accept(delivery("bob", "bob2", now=at(6)))
    works(calls, bob)
    escalates(services, bob, 6)
    services.database.rows("UPDATE channel_policies SET idle_timeout_s = 3600 WHERE channel = 'demo'")


def the_winner_waits_in_a_session_that_is_over(services: Services, calls: Calls, alice: str, bob: str) -> None:
    escalates(services, bob, 1)
    calls.accept(delivery("alice", "alice2", now=at(1)))
    ends(services, alice, 2)


def an_echo_waits_at_the_loser(services: Services, calls: Calls, alice: str, bob: str) -> None:
    calls.accept(delivery("bob", "bob2", now=at(1)))
    ends(services, bob, 2)
    [said] = calls.accept(echo(1, "bob", now=at(3)))
    assert said["is_waiting"]


def an_escalation_is_noted_at_the_loser(services: Services, calls: Calls, alice: str, bob: str) -> None:
    calls.accept(delivery("bob", "bob2", now=at(1)))
    ends(services, bob, 2)
    calls.accept(delivery("bob", "bob3", now=at(3)))
    escalates(services, bob, 3)


def the_loser_waits_for_the_human(services: Services, calls: Calls, alice: str, bob: str) -> None:
    escalates(services, bob, 1)
    ends(services, alice, 2)
    calls.accept(delivery("bob", "bob2", now=at(2)))


def the_losers_escalation_is_over(services: Services, calls: Calls, alice: str, bob: str) -> None:
    services.database.rows("UPDATE channel_policies SET escalation_timeout_s = 3600 WHERE channel = 'demo'")
    escalates(services, bob, 1)


def the_losers_escalation_is_over_since_its_last_message(
    services: Services, calls: Calls, alice: str, bob: str
) -> None:
    the_losers_escalation_is_over(services, calls, alice, bob)
    calls.accept(delivery("bob", "bob2", now=at(1.5)))


def the_losers_session_is_over(services: Services, calls: Calls, alice: str, bob: str) -> None:
    escalates(services, bob, 1)
    calls.accept(delivery("alice", "alice2", now=at(6)))
    works(calls, alice)
    services.database.rows("UPDATE channel_policies SET idle_timeout_s = 3600 WHERE channel = 'demo'")


@pytest.mark.parametrize(
    ("before", "statuses"),
    [
        (the_winners_session_is_open, ["escalated"]),
        (the_winners_session_ended, ["escalated"]),
        (the_winners_session_is_over, ["escalated"]),
        (the_winner_waits_in_a_session_that_is_over, ["active", "escalated", "escalated"]),
        (an_echo_waits_at_the_loser, ["active", "escalated", "escalated"]),
        (an_escalation_is_noted_at_the_loser, ["active", "escalated", "escalated"]),
        (the_loser_waits_for_the_human, ["escalated", "escalated"]),
        (the_losers_escalation_is_over, ["active"]),
        (the_losers_escalation_is_over_since_its_last_message, ["escalated", "active"]),
        (the_losers_session_is_over, ["active"]),
    ],
)
def test_the_winner_has_the_losers_human_for_as_long_as_the_loser_had(
    services: Services, calls: Calls, rows: Rows, before: Story, statuses: list[str]
) -> None:
    answers = calls.accept(*(delivery(who, f"{who}1", now=at(0)) for who in ("alice", "bob")))
    alice, bob = (one["user_id"] for one in answers)
    for user in (alice, bob):
        works(calls, user)
    before(services, calls, alice, bob)
    services.database.rows("SELECT merge_users(%s, %s, %s)", (alice, bob, at(6.9)))
    calls.accept(delivery("bob", "later", now=at(6.95)))
    assert [turn["session"]["status"] for turn in works(calls, alice)] == statuses
    assert rows.anomalies() == []


def test_a_dead_message_of_the_loser_is_redriven_as_the_winners_newest(
    services: Services, calls: Calls, rows: Rows
) -> None:
    alice, bob = both(calls)
    [begun] = calls.begin(lease(bob))
    dead: Item = {**settlement(begun), "failure": {"error": "E", "attempts": 0, "attempts_max": 1, "poison": "skip"}}
    del dead["effects"]
    calls.settle(dead)
    assert services.acts.merge(UUID(alice), UUID(bob), by="ann")
    assert services.acts.retry(UUID(begun["turn"]["messages"][0]["id"]), by="ann").did
    works(calls, alice)
    texts = [row.text for row in rows.inbound(UUID(alice))]
    assert texts == ["alice 1", "alice 2", "bob 2", "bob 1"]
    assert rows.anomalies() == []


def test_a_dead_message_of_the_loser_that_rqs_tools_requeue_is_on_the_winners_lane(
    services: Services, calls: Calls
) -> None:
    alice, bob = both(calls)
    [begun] = calls.begin(lease(bob))
    dead: Item = {**settlement(begun), "failure": {"error": "E", "attempts": 0, "attempts_max": 1, "poison": "skip"}}
    del dead["effects"]
    calls.settle(dead)
    services.database.rows("SELECT merge_users(%s, %s)", (alice, bob))
    message_id = begun["turn"]["messages"][0]["id"]
    duties = duties_of(services)
    assert not duties._requeued[0]._waits_again(UUID(bob), message_id)
    assert services.lanes.jobs(UUID(alice)) == [message_id]
    assert services.lanes.jobs(UUID(bob)) == []


def test_a_lane_in_use_is_left_when_its_turn_ends_and_nobody_takes_it_before_the_act(
    services: Services, accept: Accept
) -> None:
    lanes, user_id = services.lanes, accept("alice").user_id
    [leased] = lanes.lease("w1", 1, 1, LONG_TTL_S).leases
    assert not lanes.hold(user_id, "act", LONG_TTL_S)
    ended_ms = int(now_ms(services))
    assert lanes.finish(leased, may_go_on=False, has_more=True) is Released.RELEASED
    assert due_ms(services, user_id) >= ended_ms + 1_000
    assert lanes.hold(user_id, "act", LONG_TTL_S)
    assert lanes.hold(user_id, "act", LONG_TTL_S), "asked again"
    assert not lanes.hold(user_id, "another", LONG_TTL_S)
    accept("alice")
    assert lanes.lease("w2", 1, 1, LONG_TTL_S).leases == ()


def test_an_act_that_finds_a_turn_without_end_gives_up_and_holds_nothing(services: Services, accept: Accept) -> None:
    lanes = services.lanes
    users = sorted(accept(who).user_id for who in ("alice", "bob"))
    leases = {one.user_id: one for one in lanes.lease("w1", 1, 2, LONG_TTL_S).leases}
    lanes.park(leases[users[0]], 0)
    with pytest.raises(LaneBusy), held(lanes, users, wait_s=0):
        pytest.fail("held")
    [again] = lanes.lease("w2", 1, 1, LONG_TTL_S).leases
    assert (again.user_id, again.taken_over) == (users[0], False)


def test_users_are_merged_under_traffic_without_loss_or_disorder(
    services: Services, settings: Settings, rows: Rows, run_worker: RunWorker
) -> None:
    """Both go on writing by their own names, and later by both together."""
    writing, count = threading.Event(), {"alice": 0, "bob": 0}

    def write(who: str) -> None:
        while not writing.is_set() or count[who] < 40:
            count[who] += 1
            text = f"{who} {count[who]}"
            deliver(services, [Delivery(senders=(who,), external_id=text, text=text)])

    threads = [threading.Thread(target=write, args=(who,)) for who in count]
    with run_worker(settings.model_copy(update={"handler": "onelane.handlers.echo:handle"})):
        for thread in threads:
            thread.start()
        eventually(lambda: min(count.values()) >= 20)
        alice, bob = (rows.user_of("demo", who) for who in count)
        did = services.acts.merge(alice, bob, by="ann")
        writing.set()
        for thread in threads:
            thread.join()
        assert did is not None
        assert did.redis
        eventually(lambda: rows.is_settled(alice) and rows.is_settled(bob))
    handled = [line.text for user in (bob, alice) for line in rows.inbound(user)]
    for who, last in count.items():
        assert [text for text in handled if text.startswith(who)] == [f"{who} {nr}" for nr in range(1, last + 1)]
    assert len(rows.replies(alice)) + len(rows.replies(bob)) == sum(count.values())
    assert rows.anomalies() == []
