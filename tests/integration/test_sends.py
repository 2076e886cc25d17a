"""A reply's way through the outbox: begun under a fence, settled by what is known, in its user's order."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import Random
from threading import Lock
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from onelane.bootstrap import Services
from tests.by_hand import ByHand
from tests.calls import Calls, Item, delivery, lease, sent, settlement
from tests.rows import Rows

SIXTEEN = 16


@pytest.fixture
def calls(services: Services) -> Calls:
    return Calls(services.database)


@pytest.fixture
def alice(services: Services) -> ByHand:
    """Wrote once."""
    alice = ByHand(services.database)
    alice.say()
    return alice


def replied(alice: ByHand, *texts: str, **effects: Any) -> list[UUID]:
    """Answer the user's next message; return the replies' ids."""
    known = {row.id for row in alice.rows.replies(alice.user_id)}
    alice.turn(replies=[{"text": text} for text in texts], **effects)
    return [row.id for row in alice.rows.replies(alice.user_id) if row.id not in known]


def begin(calls: Calls, alice: ByHand, fence: int = 1, **extra: object) -> Item:
    [answer] = calls.begin_sends(lease(alice.user_id, fence, **extra))
    assert answer["outcome"] != "refused", answer
    return answer


def settle(calls: Calls, begun: Item, outcome: str = "accepted", fence: int = 1, **extra: object) -> Item:
    [answer] = calls.settle_sends(sent(begun, outcome, fence, **extra))
    assert answer["outcome"] != "refused", answer
    return answer


def outbox(services: Services) -> list[Any]:
    return services.database.rows("SELECT * FROM outbox ORDER BY user_id, turn_seq, ordinal")


# the plain way


def test_nothing_is_marked_of_a_channel_that_has_no_place(services: Services, calls: Calls, alice: ByHand) -> None:
    replied(alice, "one")
    before = outbox(services)
    channel = before[0].channel
    full = begin(calls, alice, full=["another", channel])
    assert (full["outcome"], full["channel"]) == ("full", channel)
    assert outbox(services) == before
    assert begin(calls, alice, full=["another"])["outcome"] == "send"


def test_a_settled_turn_names_the_replies_that_wait(alice: ByHand, rows: Rows) -> None:
    turn = alice.begin()
    settled = alice.commit(turn, replies=[{"text": "one"}, {"text": "two"}])
    assert settled.outbox == [str(row.id) for row in rows.replies(alice.user_id)]
    again = alice.commit(turn, replies=[{"text": "one"}, {"text": "two"}])
    assert (again.outcome, again.outbox) == ("already", settled.outbox)
    idle = alice.begin()
    assert (idle.outcome, idle.answer["outbox"]) == ("idle", settled.outbox)


def test_a_turn_without_replies_names_none(alice: ByHand) -> None:
    assert alice.commit(alice.begin()).outbox == []


def test_replies_are_sent_in_their_order_each_marked_before_its_request(
    services: Services, calls: Calls, alice: ByHand, rows: Rows
) -> None:
    first, second = replied(alice, "one", "two")
    begun = begin(calls, alice)
    assert (begun["outcome"], begun["reply"]["id"], begun["reply"]["attempt"]) == ("send", str(first), 1)
    assert [row.state for row in outbox(services)] == ["sending", "pending"]
    settled = settle(calls, begun, goes_on=True)
    assert (settled["outcome"], settled["state"], settled["has_more"]) == ("settled", "sent", True)
    following = settled["next"]
    assert (following["outcome"], following["reply"]["id"]) == ("send", str(second))
    last = settle(calls, following, goes_on=True)
    assert (last["state"], last["has_more"], last["next"]["outcome"]) == ("sent", False, "idle")
    assert [(row.state, row.provider_id, row.send_attempts) for row in rows.replies(alice.user_id)] == [
        ("sent", f"P{first}", 1),
        ("sent", f"P{second}", 1),
    ]
    assert not outbox(services)


def test_what_is_handed_out_is_all_that_sending_needs(
    services: Services, calls: Calls, alice: ByHand, rows: Rows
) -> None:
    services.database.rows('UPDATE inbox SET route = \'{"from": "+49"}\'')
    parts = {"buttons": [{"id": "y", "title": "Yes"}]}
    alice.turn(
        replies=[{"text": "hi", "attachments": [{"url": "https://a"}], "parts": parts, "quoted": "q", "raw": {}}]
    )
    services.database.rows(
        "INSERT INTO user_aliases (channel, alias, user_id) VALUES ('demo', 'other', %s)", (alice.user_id,)
    )
    [row], user = rows.replies(alice.user_id), rows.user(alice.user_id)
    reply = begin(calls, alice)["reply"]
    times = {name: reply.pop(name) for name in ("accepted_at", "first_sent_at", "sending_at")}
    assert all(times.values())
    assert times["first_sent_at"] == times["sending_at"]
    assert reply.pop("last_written_at") == times["accepted_at"]
    assert reply.pop("now") == times["sending_at"]
    assert reply == {
        "id": str(row.id),
        "seq": 1,
        "ordinal": 1,
        "channel": "demo",
        "to": [user.sender, "other"],
        "text": "hi",
        "attachments": [{"url": "https://a"}],
        "parts": parts,
        "quoted": "q",
        "raw": {},
        "route": {"from": "+49"},
        "traceparent": None,
        "attempt": 1,
        "counted": 1,
        "resent": False,
        "unknown_since": None,
        "ends_known": False,
    }


def test_replies_to_a_redriven_message_are_found_below_what_was_sent(
    services: Services, calls: Calls, alice: ByHand
) -> None:
    assert alice.fail(alice.begin()).outcome == "dead"
    alice.say()
    replied(alice, "to the second")
    settle(calls, begin(calls, alice), goes_on=True)
    services.database.rows("SELECT redrive_message(id) FROM messages WHERE state = 'dead'")
    settled = alice.commit(alice.begin(), replies=[{"text": "to the first"}])
    assert settled.outbox == [str(row.id) for row in outbox(services)]
    begun = begin(calls, alice)
    assert begun["reply"]["text"] == "to the first"
    assert settle(calls, begun, goes_on=True)["next"]["outcome"] == "idle"


def test_who_has_nothing_to_be_sent_is_idle(calls: Calls, alice: ByHand, services: Services) -> None:
    assert begin(calls, alice)["outcome"] == "idle"
    assert not services.database.rows("SELECT FROM out_lanes")


# what comes of a reply as it is committed


@pytest.mark.parametrize(
    ("failure", "state", "is_told"),
    [("no_route", "withheld", False), ("too_long", "failed", True), (None, "pending", False)],
)
def test_a_reply_that_cannot_be_sent_is_terminal_at_once(
    services: Services, alice: ByHand, rows: Rows, failure: str | None, state: str, is_told: bool
) -> None:
    alice.turn(replies=[{"text": "hi", **({"failure": failure} if failure else {})}])
    [reply] = rows.replies(alice.user_id)
    assert (reply.state, reply.failure, bool(reply.failed_at)) == (state, failure, is_told)
    assert [row.word for row in services.database.rows("SELECT word FROM failures_to_tell")] == [failure] * is_told
    assert len(outbox(services)) == (state == "pending")


def test_replies_that_an_escalation_overtook_are_withheld(services: Services, alice: ByHand, rows: Rows) -> None:
    turn = alice.begin()
    alice.do("escalate_session(%s)", alice.user_id)
    assert alice.commit(turn, replies=[{"text": "hi"}, {"text": "no", "failure": "too_long"}]).outbox == []
    assert [(row.state, row.failure) for row in rows.replies(alice.user_id)] == [("withheld", "escalated")] * 2
    assert not services.database.rows("SELECT FROM failures_to_tell")


def test_an_apology_is_a_reply(services: Services, alice: ByHand, rows: Rows) -> None:
    failed = alice.fail(alice.begin(), poison="apologise", apologies=[{"text": "sorry"}])
    assert failed.outbox == [str(row.id) for row in outbox(services)]
    assert rows.texts(alice.user_id) == ["sorry"]


# what comes of a request

NOT_NOW: dict[str, Any] = {"wait_s": 60.0, "scope": "user", "counts": True}


def test_not_now_lets_the_users_lane_wait(services: Services, calls: Calls, alice: ByHand) -> None:
    replied(alice, "one", "two")
    settled = settle(calls, begin(calls, alice), "not_now", goes_on=True, **NOT_NOW)
    assert (settled["outcome"], settled["state"], settled["has_more"]) == ("settled", "pending", True)
    assert settled["next"]["outcome"] == "wait"
    assert 50_000 < settled["next"]["wait_ms"] <= 60_000


@pytest.mark.parametrize(("counts", "counted"), [(True, 2), (False, 1)])
def test_a_limit_is_no_attempt_and_yet_a_request_of_its_own(
    calls: Calls, alice: ByHand, counts: bool, counted: int
) -> None:
    replied(alice, "one")
    settle(calls, begin(calls, alice), "not_now", scope="user", counts=counts, wait_s=0)
    reply = begin(calls, alice)["reply"]
    assert (reply["attempt"], reply["counted"]) == (2, counted)


@pytest.mark.parametrize(("outcome", "extra"), [("not_now", {"counts": False, "wait_s": 0}), ("broken", {})])
def test_what_is_no_attempt_takes_no_time_from_those_that_are(
    services: Services, calls: Calls, alice: ByHand, outcome: str, extra: Item
) -> None:
    replied(alice, "one")
    settle(calls, begin(calls, alice), outcome, scope="user", **extra)
    services.database.rows("UPDATE channel_holds SET probe_at = clock_timestamp()")
    reply = begin(calls, alice)["reply"]
    assert (reply["counted"], reply["first_sent_at"]) == (1, reply["sending_at"])
    settle(calls, begin(calls, alice), "not_now", scope="user", counts=True, wait_s=0)
    assert begin(calls, alice)["reply"]["first_sent_at"] == reply["sending_at"]


def test_a_limit_of_the_account_holds_its_channel_alone(services: Services, calls: Calls) -> None:
    alice, bob, cleo = (ByHand(services.database, channel=channel) for channel in ("demo", "demo", "other"))
    for one in (alice, bob, cleo):
        one.say()
        replied(one, "hi")
    settle(calls, begin(calls, alice), "not_now", scope="channel", counts=False, wait_s=60)
    held = begin(calls, bob)
    assert held["outcome"] == "held"
    assert held["wait_ms"] > 50_000
    assert begin(calls, cleo)["outcome"] == "send"


def test_where_the_conversation_moved_the_same_reply_follows(calls: Calls, alice: ByHand) -> None:
    replied(alice, "one")
    settle(calls, begin(calls, alice), "not_now", scope="user", counts=False, wait_s=0, route={"chat": "2"})
    assert begin(calls, alice)["reply"]["route"] == {"chat": "2"}


def test_what_is_refused_has_failed_and_its_bot_is_told(
    services: Services, calls: Calls, alice: ByHand, rows: Rows
) -> None:
    first, second = replied(alice, "one", "two")
    settled = settle(calls, begin(calls, alice), "never", goes_on=True, failure="blocked", failure_code="403")
    assert (settled["state"], settled["next"]["reply"]["id"]) == ("failed", str(second))
    reply = rows.replies(alice.user_id)[0]
    assert (reply.state, reply.failure, reply.failure_code, bool(reply.failed_at)) == ("failed", "blocked", "403", True)
    [told] = services.database.rows("SELECT * FROM failures_to_tell")
    assert (told.reply_id, told.user_id, told.word, told.code) == (first, alice.user_id, "blocked", "403")


def test_a_broken_channel_is_probed_by_one_reply_and_opens_by_it(services: Services, calls: Calls) -> None:
    alice, bob = ByHand(services.database), ByHand(services.database)
    for one in (alice, bob):
        one.say()
        replied(one, "hi")
    settled = settle(calls, begin(calls, alice), "broken", failure="bad_token", failure_code="401", goes_on=True)
    assert settled["state"] == "pending"
    assert settled["next"]["outcome"] == "held"
    assert begin(calls, bob)["outcome"] == "held"
    services.database.rows("UPDATE channel_holds SET probe_at = clock_timestamp()")
    probe = begin(calls, bob)
    assert (probe["outcome"], probe["reply"]["counted"]) == ("send", 1)
    assert begin(calls, alice)["outcome"] == "held"
    settle(calls, probe)
    begun = begin(calls, alice)
    assert (begun["outcome"], begun["reply"]["attempt"], begun["reply"]["counted"]) == ("send", 2, 1)


@pytest.mark.parametrize("outcome", ["not_now", "never"])
def test_a_probe_that_says_nothing_of_its_channel_lets_the_next_one_be_it_at_once(
    services: Services, calls: Calls, outcome: str
) -> None:
    alice, bob = ByHand(services.database), ByHand(services.database)
    for one in (alice, bob):
        one.say()
        replied(one, "hi")
    settle(calls, begin(calls, alice), "broken", failure="denied")
    services.database.rows("UPDATE channel_holds SET probe_at = clock_timestamp()")
    settle(calls, begin(calls, alice), outcome, counts=False, wait_s=0)
    assert begin(calls, bob)["outcome"] == "send"


@pytest.mark.parametrize(("code", "state"), [("missing_scope", "failed"), (None, "pending")])
def test_a_reply_that_alone_is_refused_as_if_its_channel_were_broken_does_not_stop_it_again_and_again(
    services: Services, calls: Calls, alice: ByHand, rows: Rows, code: str | None, state: str
) -> None:
    """Others' replies are taken in between. Where its code is another each time, it is not known to be the reply."""
    replied(alice, "never taken", "taken")
    bob = ByHand(services.database)
    for nr in range(3):
        settle(calls, begin(calls, alice), "not_now", counts=False, wait_s=0)  # its file is uploaded meanwhile
        settled = settle(calls, begin(calls, alice), "broken", failure="denied", failure_code=code or str(nr))
        services.database.rows("UPDATE channel_holds SET probe_at = clock_timestamp() WHERE broken_at < now()")
        bob.say()
        replied(bob, "hi")
        settle(calls, begin(calls, bob))
    assert settled["state"] == rows.replies(alice.user_id)[0].state == state
    assert [row.word for row in services.database.rows("SELECT word FROM failures_to_tell")] == ["denied"] * (
        state == "failed"
    )


def test_a_channel_that_is_broken_loses_no_reply_however_often_it_is_probed(
    services: Services, calls: Calls, alice: ByHand
) -> None:
    replied(alice, "one")
    for _ in range(10):
        assert settle(calls, begin(calls, alice), "broken", failure="denied", failure_code="401")["state"] == "pending"
        services.database.rows("UPDATE channel_holds SET probe_at = clock_timestamp()")


def test_what_was_accepted_before_a_channel_broke_does_not_mend_it(services: Services, calls: Calls) -> None:
    alice, bob, cleo = (ByHand(services.database) for _ in range(3))
    for one in (alice, bob, cleo):
        one.say()
        replied(one, "hi")
    earlier = begin(calls, bob)
    settle(calls, begin(calls, alice), "broken", failure="bad_token")
    settle(calls, earlier)
    assert begin(calls, cleo)["outcome"] == "held"


def test_who_wants_no_messages_gets_none(services: Services, calls: Calls, alice: ByHand, rows: Rows) -> None:
    replied(alice, "one", "two")
    services.database.rows("UPDATE users SET opted_out_at = now()")
    assert begin(calls, alice)["outcome"] == "idle"
    assert [(row.state, row.failure) for row in rows.replies(alice.user_id)] == [("failed", "opted_out")] * 2
    assert len(services.database.rows("SELECT FROM failures_to_tell")) == 2


# what is not known


def test_a_later_lease_that_finds_a_request_begun_does_not_know_what_came_of_it(calls: Calls, alice: ByHand) -> None:
    [reply_id] = replied(alice, "one")
    begin(calls, alice, 1)
    found = begin(calls, alice, 2)
    assert (found["outcome"], found["reply"]["id"], found["reply"]["ends_known"]) == ("unknown", str(reply_id), False)
    again = begin(calls, alice, 2)
    assert again["reply"].pop("now") >= found["reply"].pop("now")
    assert again == found
    assert begin(calls, alice, 1)["outcome"] == "fenced"


def test_another_lease_with_the_same_number_does_not_send_again(calls: Calls, alice: ByHand) -> None:
    """A fail-over of Redis lost the counter."""
    replied(alice, "one")
    begin(calls, alice, token="a")
    assert begin(calls, alice, token="b")["outcome"] == "unknown"


def test_a_begin_whose_answer_was_lost_is_answered_again_and_counts_nothing(calls: Calls, alice: ByHand) -> None:
    replied(alice, "one")
    first, again = begin(calls, alice), begin(calls, alice)
    assert again["outcome"] == "send"
    for answer in (first, again):
        del answer["reply"]["sending_at"], answer["reply"]["now"]
    assert again == first


def test_a_request_that_is_over_and_not_known_is_known_to_be_over(calls: Calls, alice: ByHand) -> None:
    replied(alice, "one")
    settled = settle(calls, begin(calls, alice), "unknown", goes_on=True)
    assert (settled["state"], settled["next"]["outcome"]) == ("unknown", "unknown")
    assert settled["next"]["reply"]["ends_known"]


def test_a_reply_that_the_provider_does_not_have_is_sent_again_once(calls: Calls, alice: ByHand, rows: Rows) -> None:
    replied(alice, "one", "two")
    settle(calls, begin(calls, alice), "unknown")
    settled = settle(calls, begin(calls, alice), "absent", goes_on=True)
    again = settled["next"]
    assert (again["outcome"], again["reply"]["attempt"], again["reply"]["resent"]) == ("send", 2, True)
    settle(calls, again, "unknown")
    settled = settle(calls, begin(calls, alice), "absent", goes_on=True)
    assert (settled["state"], settled["next"]["reply"]["text"]) == ("failed", "two")
    reply = rows.replies(alice.user_id)[0]
    assert (reply.state, reply.failure, reply.send_attempts) == ("failed", "absent", 2)


@pytest.mark.parametrize("what", ["absent", "resend"])
def test_nothing_is_sent_again_while_its_request_may_be_under_way(
    services: Services, calls: Calls, alice: ByHand, what: str
) -> None:
    replied(alice, "one")
    begin(calls, alice, 1)
    found = begin(calls, alice, 2)
    assert settle(calls, found, what, 2)["state"] == "unknown"
    services.database.rows("UPDATE outbox SET sending_at = sending_at - interval '31 s'")
    assert settle(calls, found, what, 2)["state"] == "pending"


def test_resend_waits_as_long_as_it_is_asked_to(calls: Calls, alice: ByHand) -> None:
    replied(alice, "one")
    settle(calls, begin(calls, alice), "unknown")
    settled = settle(calls, begin(calls, alice), "resend", wait_s=60, goes_on=True)
    assert (settled["state"], settled["next"]["outcome"]) == ("pending", "wait")


def test_what_is_given_up_lets_the_lane_go_on(calls: Calls, alice: ByHand, rows: Rows) -> None:
    replied(alice, "one", "two")
    settle(calls, begin(calls, alice), "unknown")
    settled = settle(calls, begin(calls, alice), "give_up", goes_on=True)
    assert (settled["state"], settled["next"]["reply"]["text"]) == ("unknown", "two")


def test_a_reply_that_was_given_up_is_sent_when_it_turns_out_so(calls: Calls, alice: ByHand, rows: Rows) -> None:
    replied(alice, "one")
    begun = begin(calls, alice)
    settle(calls, begun, "unknown")
    settle(calls, begun, "give_up")
    settled = settle(calls, begun, fence=0)
    assert (settled["outcome"], settled["state"], settled["is_duplicate"]) == ("settled", "sent", False)
    [reply] = rows.replies(alice.user_id)
    assert (reply.state, reply.given_up_at, reply.failure) == ("sent", None, None)


def test_a_second_message_of_one_reply_is_noted(calls: Calls, alice: ByHand, rows: Rows) -> None:
    """The first request was proved absent, and arrived all the same."""
    replied(alice, "one")
    first = begin(calls, alice)
    settle(calls, first, "unknown")
    settle(calls, first, "absent")
    settle(calls, begin(calls, alice), provider_id="second")
    late = settle(calls, first, provider_id="first")
    assert (late["outcome"], late["state"], late["is_duplicate"]) == ("settled", "sent", True)
    assert settle(calls, first, provider_id="first")["outcome"] == "already"
    [reply] = rows.replies(alice.user_id)
    assert (reply.provider_id, bool(reply.duplicated_at)) == ("second", True)


def test_what_an_earlier_request_brings_is_taken_while_a_later_one_is_under_way(
    services: Services, calls: Calls, alice: ByHand, rows: Rows
) -> None:
    replied(alice, "one")
    first = begin(calls, alice)
    settle(calls, first, "unknown")
    settle(calls, first, "absent")
    second = begin(calls, alice, 2)
    assert settle(calls, first, provider_id="first")["state"] == "sent"
    assert not outbox(services)
    assert settle(calls, second, "never", 2)["outcome"] == "already"
    assert settle(calls, second, fence=2, provider_id="second")["is_duplicate"]


@pytest.mark.parametrize("what", ["not_now", "never", "broken", "unknown", "absent", "resend", "give_up"])
def test_nothing_else_counts_of_an_earlier_request(services: Services, calls: Calls, alice: ByHand, what: str) -> None:
    replied(alice, "one")
    first = begin(calls, alice)
    settle(calls, first, "not_now", counts=False)
    begin(calls, alice)
    before = outbox(services)
    settled = settle(calls, first, what)
    assert (settled["outcome"], settled["state"]) == ("already", "sending")
    assert outbox(services) == before
    assert not services.database.rows("SELECT FROM channel_holds")


@pytest.mark.parametrize("what", ["not_now", "never", "broken", "unknown"])
def test_the_fence_guards_no_knowledge(calls: Calls, alice: ByHand, what: str) -> None:
    replied(alice, "one")
    begun = begin(calls, alice, 1)
    begin(calls, alice, 2)
    assert settle(calls, begun, what, 1)["outcome"] == "settled"


@pytest.mark.parametrize("what", ["absent", "resend", "give_up", "withhold"])
def test_the_fence_guards_what_is_decided(services: Services, calls: Calls, alice: ByHand, what: str) -> None:
    replied(alice, "one")
    begun = begin(calls, alice, 1)
    settle(calls, begun, "unknown")
    begin(calls, alice, 2)
    before = outbox(services)
    settled = settle(calls, begun, what, 1, goes_on=True)
    assert (settled["outcome"], settled["next"]) == ("fenced", None)
    assert outbox(services) == before


# what the provider says before us


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("sent", "sent"),
        ("delivered", "delivered"),
        ("read", "read"),
        ("failed", "failed"),
        ("failed delivered", "delivered"),
    ],
)
def test_a_status_that_came_before_our_own_mark_counts(
    services: Services, calls: Calls, alice: ByHand, rows: Rows, said: str, state: str
) -> None:
    [reply_id] = replied(alice, "one")
    begun = begin(calls, alice)
    for word in said.split():
        alice.do(
            "note_statuses(%s::jsonb)",
            f'[{{"channel": "demo", "provider_id": "P{reply_id}", "state": "{word}", "failure_code": "7"}}]',
        )
    assert settle(calls, begun)["state"] == state
    [reply] = rows.replies(alice.user_id)
    assert (reply.state, reply.failure_code) == (state, "7" if state == "failed" else None)
    assert len(services.database.rows("SELECT FROM failures_to_tell")) == (state == "failed")


def test_the_replies_of_a_merged_user_go_to_the_winner(services: Services, calls: Calls, alice: ByHand) -> None:
    replied(alice, "one")
    bob = ByHand(services.database)
    bob.say()
    bob.do("merge_users(%s, %s)", bob.user_id, alice.user_id)
    reply = begin(calls, alice)["reply"]
    winner = bob.rows.user(bob.user_id)
    assert reply["to"][0] == winner.sender
    assert len(reply["to"]) == 2


# lists

ENDS: dict[str, Callable[[Item], Item]] = {
    "accepted": lambda begun: sent(begun, goes_on=True),
    "not_now": lambda begun: sent(begun, "not_now", goes_on=True, **NOT_NOW),
    "never": lambda begun: sent(begun, "never", failure="blocked", goes_on=True),
    "unknown": lambda begun: sent(begun, "unknown", goes_on=True),
}


def crowd(calls: Calls, count: int = SIXTEEN) -> list[str]:
    """Let so many users have two replies to be sent each; return their ids."""
    users = calls.accept(*(delivery(f"user {nr}", f"m{nr}") for nr in range(count)))
    turns = calls.begin(*(lease(one["user_id"]) for one in users))
    calls.settle(*(settlement(one, replies=[{"text": "one"}, {"text": "two"}]) for one in turns))
    return [one["user_id"] for one in users]


def test_sixteen_lanes_are_begun_and_settled_in_one_call_each(calls: Calls, rows: Rows) -> None:
    begun = calls.begin_sends(*map(lease, crowd(calls)), waits=False)
    assert [one["outcome"] for one in begun] == ["send"] * SIXTEEN
    settled = calls.settle_sends(*(sent(one, goes_on=True) for one in begun), waits=False)
    assert [one["next"]["outcome"] for one in settled] == ["send"] * SIXTEEN
    settled = calls.settle_sends(*(sent(one["next"], goes_on=True) for one in settled), waits=False)
    assert [one["next"]["outcome"] for one in settled] == ["idle"] * SIXTEEN
    assert {row.state for row in rows.answers()} == {"sent"}


@pytest.mark.parametrize("what", ENDS)
def test_a_settlement_asked_again_word_for_word_changes_nothing_more(
    services: Services, calls: Calls, what: str
) -> None:
    items = [ENDS[what](one) for one in calls.begin_sends(*map(lease, crowd(calls, 4)))]
    first = calls.settle_sends(*items)
    before = outbox(services)
    again = calls.settle_sends(*items)
    still = "settled" if what == "unknown" else "already"
    assert [one["outcome"] for one in again] == [still] * 4
    assert [one["next"]["outcome"] for one in again] == [one["next"]["outcome"] for one in first]
    assert [(row.state, row.requests, row.attempts) for row in outbox(services)] == [
        (row.state, row.requests, row.attempts) for row in before
    ]


def test_a_reply_of_a_channel_that_cannot_send_any_more_is_withheld(
    services: Services, calls: Calls, alice: ByHand, rows: Rows
) -> None:
    replied(alice, "one")
    begun = begin(calls, alice)
    withheld = settle(calls, begun, "withhold", failure="no_route")
    assert (withheld["state"], withheld["has_more"]) == ("withheld", False)
    assert settle(calls, begun, "withhold", failure="no_route")["outcome"] == "already"
    assert [row.failure for row in rows.replies(alice.user_id)] == ["no_route"]


# what it costs


def test_whatever_becomes_of_a_reply_its_rows_stay_on_their_pages(services: Services, rows: Rows, calls: Calls) -> None:
    """No index has to be written for a change of state, unless it failed: those that did have one."""
    usual = ("accepted", "not_now", "unknown")
    users = crowd(calls, len(usual))
    query = "SELECT {} AS answers"
    with services.database.transaction() as connection:

        def ask(function: str, items: list[Item]) -> list[Item]:
            [(answers,)] = connection.execute(query.format(f"{function}(%s)"), (Jsonb(items),)).fetchall()
            return list(answers)

        begun = ask("begin_sends", [lease(one) for one in users])
        ask("settle_sends", [ENDS[what](one) for one, what in zip(begun, usual, strict=True)])
        ask("settle_sends", [sent(one) for one in begun])
        changed = connection.execute(
            "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables"
            " WHERE relname IN ('messages', 'outbox', 'out_lanes') ORDER BY relname"
        ).fetchall()
    assert [(row.relname, row.n_tup_upd > 0) for row in changed] == [
        ("messages", True),
        ("out_lanes", True),
        ("outbox", True),
    ]
    assert [row.n_tup_hot_upd for row in changed] == [row.n_tup_upd for row in changed]


# many at once

PEOPLE = tuple(f"user {nr}" for nr in range(SIXTEEN))
ACTS: dict[str, dict[str, Any]] = {
    "accepted": {},
    "not_now": {"wait_s": 0, "scope": "user"},
    "limit": {"outcome": "not_now", "wait_s": 0, "scope": "user", "counts": False},
    "never": {"failure": "blocked"},
    "unknown": {},
    "absent": {},
    "resend": {},
    "give_up": {},
    "refused": {"outcome": "give_up", "attempt": "one"},
    "late": {"outcome": "never", "attempt": 0},
    "fenced": {"outcome": "give_up", "fence": 0},
}
Round = dict[str, str]
HISTORIES = st.lists(
    st.dictionaries(st.sampled_from(PEOPLE), st.sampled_from(sorted(ACTS)), min_size=1), min_size=1, max_size=8
)


def play(calls: Calls, history: Sequence[Round]) -> dict[str, list[Any]]:
    """Let all have three replies, and send them round by round, each a list of all who take part."""
    users = calls.accept(*(delivery(person, f"{person} 1") for person in PEOPLE))
    turns = calls.begin(*(lease(one["user_id"]) for one in users))
    calls.settle(*(settlement(one, replies=[{"text": str(nr)} for nr in range(3)]) for one in turns))
    ids = {person: one["user_id"] for person, one in zip(PEOPLE, users, strict=True)}
    outcomes: dict[str, list[Any]] = {person: [] for person in PEOPLE}
    rounds: Counter[str] = Counter()
    for acts in history:
        rounds.update(acts.keys())
        fences = {person: 1 + rounds[person] // 2 for person in acts}
        begun = calls.begin_sends(*(lease(ids[person], fences[person]) for person in acts), waits=False)
        items, who = [], []
        for (person, act), one in zip(acts.items(), begun, strict=True):
            outcomes[person].append(one["outcome"])
            if "reply" in one:
                outcomes[person].append((one["reply"]["text"], one["reply"]["attempt"], one["reply"]["counted"]))
                extra = {"outcome": act, "goes_on": rounds[person] % 2 == 0, **ACTS[act]}
                items.append({**sent(one, fence=fences[person]), **extra})
                who.append(person)
        for person, one in zip(who, calls.settle_sends(*items, waits=False), strict=True):
            outcomes[person] += [one["outcome"], one.get("state"), (one.get("next") or {}).get("outcome")]
    return outcomes


SENDS = """
SELECT u.sender, m.ordinal, m.state, m.send_attempts, m.failure, o.state AS waits, o.requests, o.attempts, o.resent
  FROM messages m JOIN users u ON u.id = m.user_id LEFT JOIN outbox o ON o.id = m.id
 WHERE m.direction = 'out' ORDER BY u.sender, m.ordinal
"""


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=HISTORIES)
@pytest.mark.slow
def test_any_interleaving_in_lists_equals_the_items_one_by_one(
    services: Services, rows: Rows, history: list[Round]
) -> None:
    calls = Calls(services.database)
    rows.empty()
    together, stored = play(calls, history), services.database.rows(SENDS)
    rows.empty()
    alone = [{person: acts[person]} for person in PEOPLE for acts in history if person in acts]
    assert play(calls, alone) == together
    assert services.database.rows(SENDS) == stored


def test_holders_at_the_same_time_never_begin_one_request_twice(services: Services, calls: Calls, rows: Rows) -> None:
    """Each is the holder of every lane in its turn, with ever larger fences, and brings what it knows late."""
    users, fences, lock = crowd(calls, 4), count(1), Lock()
    begun: list[tuple[str, int]] = []

    def hold(seed: int) -> None:
        chance, kept = Random(seed), []
        for _ in range(40):
            user = chance.choice(users)
            with lock:
                fence = next(fences)
            [one] = calls.begin_sends(lease(user, fence, token=str(fence)))
            if one["outcome"] == "send":
                with lock:
                    begun.append((one["reply"]["id"], one["reply"]["attempt"]))
            if "reply" in one:
                kept.append(sent(one, chance.choice(["accepted", "not_now", "unknown", "absent"]), fence, wait_s=0))
            if kept and chance.random() < 0.5:
                [answer] = calls.settle_sends(kept.pop(chance.randrange(len(kept))))
                assert answer["outcome"] in {"settled", "already", "fenced"}, answer

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, range(4)))
    assert len(begun) == len(set(begun)) > 0
    for user in users:
        states = [row.state for row in rows.replies(UUID(user))]
        assert states == sorted(states, key=lambda state: state == "pending"), "the second went before the first"
