"""What operators do about replies: resend, settle, drop; and a channel that is broken is opened."""

from typing import Any
from uuid import UUID

import pytest

from onelane.bootstrap import Services
from onelane.operations import replies
from tests.by_hand import ByHand
from tests.calls import Calls, lease, sent
from tests.conftest import LogLines


class Replied:
    """A user who is to get three replies."""

    def __init__(self, services: Services) -> None:
        self.services, self.calls, self.user = services, Calls(services.database), ByHand(services.database)
        self.user.say()
        self.user.turn(replies=[{"text": text} for text in ("one", "two", "three")])
        self.fence = 0

    def ids(self) -> list[UUID]:
        return [row.id for row in self.user.rows.replies(self.user.user_id)]

    def states(self) -> list[str]:
        return [row.state for row in self.user.rows.replies(self.user.user_id)]

    def send(self, outcome: str = "accepted", **what: Any) -> str:
        """Send what is first; return its text."""
        self.fence += 1
        [begun] = self.calls.begin_sends(lease(self.user.user_id, self.fence))
        [settled] = self.calls.settle_sends(sent(begun, outcome, self.fence, **what))
        assert settled["outcome"] == "settled", settled
        return str(begun["reply"]["text"])

    def is_due(self) -> bool:
        """Whether a worker would lease the lane of replies."""
        self.fence += 1
        leases = self.services.out_lanes.lease("w", self.fence, 1, 10).leases
        for one in leases:
            self.services.out_lanes.park(one, 3_600)
        return bool(leases)


@pytest.fixture
def replied(services: Services) -> Replied:
    return Replied(services)


def test_a_failed_reply_is_resent_before_what_was_said_after_it(services: Services, replied: Replied) -> None:
    assert replied.send("never", failure="blocked") == "one"
    [one, *_] = replied.ids()
    assert services.reply_acts.resend(one, by="ann").did
    assert not services.reply_acts.resend(one, by="ann").did
    assert replied.is_due()
    assert [replied.send(), replied.send()] == ["one", "two"]
    assert replied.states() == ["sent", "sent", "pending"]
    assert services.failures.tell() == 0, "it has not failed"


def test_a_failed_reply_is_resent_before_what_later_turns_said(services: Services, replied: Replied) -> None:
    replied.user.say()
    replied.user.turn(replies=[{"text": "four"}])
    replied.send("never", failure="blocked")
    [one, *_] = replied.ids()
    assert [replied.send(), replied.send()] == ["two", "three"]
    assert replied.send("not_now", counts=False, wait_s=0, scope="user") == "four"
    assert services.reply_acts.resend(one, by="ann").did
    assert [replied.send(), replied.send()] == ["one", "four"]


def test_the_requests_of_a_reply_are_numbered_on_whoever_ended_it(services: Services, replied: Replied) -> None:
    """A late answer to the first is known as such."""
    replied.send("unknown")
    [one, *_] = replied.ids()
    assert services.reply_acts.drop(one, by="ann").did
    assert services.reply_acts.resend(one, by="ann").did
    replied.fence += 1
    [begun] = replied.calls.begin_sends(lease(replied.user.user_id, replied.fence))
    assert (begun["reply"]["attempt"], begun["reply"]["resent"]) == (2, True)
    late = {**sent(begun, "never", replied.fence, failure="blocked"), "attempt": 1}
    assert replied.calls.settle_sends(late)[0]["outcome"] == "already"


def test_a_reply_that_was_given_up_is_resent_under_the_same_key_and_its_first_message_is_a_duplicate(
    services: Services, replied: Replied
) -> None:
    replied.send("unknown")
    replied.send("give_up")
    [one, *_] = replied.ids()
    assert services.reply_acts.resend(one, by="ann").did
    assert replied.send(provider_id="second") == "one"
    late = {"channel": "demo", "provider_id": "first", "state": "delivered", "key": str(one)}
    [answer] = replied.calls._call("note_statuses", (late,), waits=True)
    assert answer["duplicated"]


@pytest.mark.parametrize("state", ["sent", "failed"])
def test_a_reply_of_unknown_fate_is_settled_and_the_lane_goes_on(
    services: Services, replied: Replied, state: Any
) -> None:
    replied.send("unknown")
    [one, two, _] = replied.ids()
    services.out_lanes.enqueue(replied.user.user_id, one)
    assert replied.is_due()
    assert services.reply_acts.settle(one, state, by="ann").did
    assert not services.reply_acts.settle(one, state, by="ann").did
    assert not services.reply_acts.settle(two, state, by="ann").did
    assert replied.is_due()
    assert replied.states() == [state, "pending", "pending"]
    events = services.database.rows("SELECT parts FROM messages WHERE event = 'reply_failed'")
    assert [row.parts["reply"]["word"] for row in events] == ["operator"] * (state == "failed")


def test_what_waits_or_is_unknown_can_be_dropped_and_what_is_being_sent_cannot(
    services: Services, replied: Replied
) -> None:
    [one, two, three] = replied.ids()
    replied.calls.begin_sends(lease(replied.user.user_id, 1))
    replied.fence = 1
    assert not services.reply_acts.drop(one, by="ann").did
    assert services.reply_acts.drop(two, by="ann").did
    assert replied.send("unknown", reply_id=str(one)) == "one"
    assert services.reply_acts.drop(one, by="ann").did
    assert replied.send() == "three"
    assert replied.states() == ["dropped", "dropped", "sent"]
    assert not services.reply_acts.drop(three, by="ann").did
    assert services.reply_acts.resend(two, by="ann").did
    assert replied.send() == "two"


def test_a_withheld_reply_can_be_sent_after_all(services: Services, replied: Replied) -> None:
    replied.send("withhold", failure="no_route")
    assert services.reply_acts.resend(replied.ids()[0], by="ann").did
    assert replied.send() == "one"


def test_a_broken_channel_is_opened_once_and_sends_at_once(services: Services, replied: Replied) -> None:
    replied.send("broken", failure="denied")
    [held] = replied.calls.begin_sends(lease(replied.user.user_id, 5))
    assert held["outcome"] == "held"
    assert [services.reply_acts.open_channel("demo", by="ann").did for _ in range(2)] == [True, False]
    replied.fence = 5
    assert replied.send() == "one"


def test_a_channel_that_sends_is_not_opened(services: Services, replied: Replied, log_lines: LogLines) -> None:
    replied.send("broken", failure="denied")
    services.database.rows("UPDATE channel_holds SET probe_at = clock_timestamp()")
    replied.fence = 5
    assert replied.send() == "one"
    assert not services.reply_acts.open_channel("demo", by="ann").did
    assert "channel_opened" not in [line["event"] for line in log_lines]
    assert services.database.rows("SELECT FROM audit") == []


def test_the_lanes_that_waited_for_a_channel_are_due_when_it_is_opened(
    services: Services, replied: Replied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "PAGE", 1)
    other = Replied(services)
    for one in (replied, other):
        services.out_lanes.enqueue(one.user.user_id, one.ids()[0])
    replied.send("not_now", counts=False, wait_s=3_600, scope="channel")
    for lane in services.out_lanes.lease("w", 99, 9, 10).leases:
        services.out_lanes.park(lane, 3_600)
    assert services.reply_acts.open_channel("demo", by="ann").redis
    assert {lane.user_id for lane in services.out_lanes.lease("w", 100, 9, 10).leases} == {
        replied.user.user_id,
        other.user.user_id,
    }


def test_what_is_no_reply_is_left_alone(services: Services, replied: Replied) -> None:
    message = replied.user.rows.inbound(replied.user.user_id)[0].id
    for reply_id in (message, UUID(int=0)):
        assert not services.reply_acts.resend(reply_id, by="ann").did
        assert not services.reply_acts.drop(reply_id, by="ann").did
        assert not services.reply_acts.settle(reply_id, "sent", by="ann").did
