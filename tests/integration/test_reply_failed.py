"""Replies that failed are told to the bot, each once, as an event of its user."""

from threading import Thread
from typing import Any
from uuid import UUID

import pytest

from onelane.bootstrap import Services
from tests.by_hand import ByHand
from tests.calls import Calls, delivery
from tests.conftest import DEADLINE_S
from tests.duties import duties_of
from tests.rows import Rows

FAIL = "SELECT fail_reply(%s, 'blocked', '403')"
OUTBOX = "SELECT id FROM outbox ORDER BY turn_seq, ordinal"


@pytest.fixture
def alice(services: Services) -> ByHand:
    """Wrote, and got an answer."""
    alice = ByHand(services.database)
    alice.say()
    alice.turn(replies=[{"text": "answer"}])
    return alice


def wants_events(services: Services) -> None:
    services.database.rows("UPDATE channel_policies SET wants_events = true")


def fail_all(services: Services) -> list[UUID]:
    """Let all replies fail that wait; return them."""
    failed = [row.id for row in services.database.rows(OUTBOX)]
    for reply_id in failed:
        services.database.rows(FAIL, (reply_id,))
    return failed


def events(services: Services) -> list[Any]:
    return services.database.rows(
        "SELECT seq, event, parts, session_id, external_id FROM messages WHERE event = 'reply_failed' ORDER BY seq"
    )


def test_without_on_event_it_is_a_line_of_the_history(services: Services, alice: ByHand) -> None:
    [reply_id] = fail_all(services)
    user = alice.rows.user(alice.user_id)
    assert [services.failures.tell(), services.failures.tell()] == [1, 0]
    [line] = events(services)
    assert (line.seq, line.parts) == (2, {"reply": {"id": str(reply_id), "word": "blocked", "code": "403"}})
    assert line.session_id == alice.rows.sessions(alice.user_id)[0].id
    after = alice.rows.user(alice.user_id)
    assert (after.last_seq, after.waiting, after.last_accepted_at) == (2, 0, user.last_accepted_at)
    assert alice.rows.anomalies() == []


def test_with_on_event_it_makes_a_turn_and_the_failure_of_its_answer_makes_none(
    services: Services, alice: ByHand
) -> None:
    wants_events(services)
    [first] = fail_all(services)
    assert services.failures.tell() == 1
    assert services.lanes.jobs(alice.user_id) != []
    turn = alice.begin()
    [message] = turn.answer["turn"]["messages"]
    assert (message["event"], message["parts"]["reply"]["id"]) == ("reply_failed", str(first))
    alice.commit(turn, replies=[{"text": "sorry"}])
    assert fail_all(services) != []
    assert services.failures.tell() == 0
    assert services.database.rows("SELECT FROM failures_to_tell") == []
    assert alice.rows.is_settled(alice.user_id)


def test_what_was_said_from_outside_after_such_an_event_is_no_answer_to_it(services: Services, alice: ByHand) -> None:
    fail_all(services)
    services.failures.tell()
    services.database.rows(
        "SELECT store_replies(%s, 'demo', NULL, 2, 0, NULL, now(), '[{\"text\": \"news\"}]', p_external_id => 'say k')",
        (alice.user_id,),
    )
    fail_all(services)
    assert services.failures.tell() == 1


def test_what_somebody_is_told_who_writes_too_fast_is_no_answer_to_such_an_event(
    services: Services, alice: ByHand
) -> None:
    sender = alice.rows.user(alice.user_id).sender
    fail_all(services)
    services.failures.tell()
    for name in ("m1", "m2"):
        Calls(services.database).accept(delivery(sender, name, busy_replies=[{"text": "One moment."}]))
    assert len(fail_all(services)) == 1
    assert services.failures.tell() == 1


def test_many_who_tell_at_once_tell_each_failure_once(services: Services) -> None:
    users = [ByHand(services.database) for _ in range(5)]
    for user in users:
        user.say()
        user.turn(replies=[{"text": "one"}, {"text": "two"}])
    fail_all(services)
    threads = [Thread(target=services.failures.tell) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    services.failures.tell()  # of who was locked
    assert {user.user_id: len(told(services, user)) for user in users} == {user.user_id: 2 for user in users}


def told(services: Services, user: ByHand) -> list[Any]:
    return services.database.rows(
        "SELECT seq FROM messages WHERE user_id = %s AND event = 'reply_failed'", (user.user_id,)
    )


def test_whose_worker_died_before_it_told_is_told_by_the_duties(services: Services, alice: ByHand) -> None:
    fail_all(services)
    duties_of(services).round()
    assert len(events(services)) == 1


def test_a_user_whom_somebody_holds_is_told_later_and_keeps_no_other_waiting(services: Services, alice: ByHand) -> None:
    bob = ByHand(services.database)
    bob.say()
    bob.turn(replies=[{"text": "answer"}])
    fail_all(services)
    with services.database.transaction() as holder:
        holder.execute("SELECT FROM users WHERE id = %s FOR NO KEY UPDATE", (alice.user_id,))
        assert services.failures.tell() == 1
    assert (told(services, alice), len(told(services, bob))) == ([], 1)
    assert services.failures.tell() == 1


def test_a_merged_users_failure_is_the_winners_event(services: Services, alice: ByHand, rows: Rows) -> None:
    bob = rows.make_user("demo", "bob")
    assert services.acts.merge(bob, alice.user_id, by="ann")
    fail_all(services)
    assert services.failures.tell() == 1
    [event] = services.database.rows("SELECT user_id FROM messages WHERE event = 'reply_failed'")
    assert event.user_id == bob


def test_a_reply_that_fails_again_after_an_operator_resent_it_is_told_again(services: Services, alice: ByHand) -> None:
    [reply_id] = fail_all(services)
    services.failures.tell()
    assert services.reply_acts.resend(reply_id, by="ann").did
    fail_all(services)
    assert services.failures.tell() == 1
    assert len(events(services)) == 2
