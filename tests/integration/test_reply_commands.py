"""`onelane replies`, `reply` and `channel`: what waits, what is not known, and what an operator can do about it."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner

from onelane.bootstrap import Services
from onelane.cli import onelane
from onelane.config import Channel, Settings
from tests.by_hand import ByHand
from tests.calls import Calls, Item, lease, sent
from tests.conftest import SECRET, RunWorker, eventually
from tests.integration.test_commands import TEXT, Ask, Invoke
from tests.integration.test_commands import ask as ask  # noqa: PLC0414 - a fixture
from tests.integration.test_commands import invoke as invoke  # noqa: PLC0414 - as above


class Sends:
    """One user's replies, sent by hand."""

    def __init__(self, services: Services) -> None:
        self._calls = Calls(services.database)
        self._by_hand = ByHand(services.database)
        self._by_hand.say()
        self._by_hand.turn()
        self.user_id = self._by_hand.user_id

    def reply(self, *texts: str) -> list[UUID]:
        """Answer a message."""
        known = {row.id for row in self._by_hand.rows.replies(self.user_id)}
        self._by_hand.say()
        self._by_hand.turn(replies=[{"text": text} for text in texts])
        return [row.id for row in self._by_hand.rows.replies(self.user_id) if row.id not in known]

    def begin(self) -> Item:
        """Mark the next one."""
        [begun] = self._calls.begin_sends(lease(self.user_id))
        return begun

    def settle(self, begun: Item, outcome: str, **extra: Any) -> None:
        """Say what came of it."""
        [settled] = self._calls.settle_sends(sent(begun, outcome, **extra))
        assert settled["outcome"] == "settled"

    def give_up(self) -> None:
        """Let nobody know what became of the next one."""
        begun = self.begin()
        self.settle(begun, "unknown")
        self.settle(begun, "give_up")


@pytest.fixture
def alice(services: Services) -> Sends:
    return Sends(services)


def states(found: Item) -> list[tuple[str, str]]:
    return [(one["reply_id"], one["state"]) for one in found["replies"]]


def test_what_waits_is_counted_by_state_and_listed_oldest_first(alice: Sends, ask: Ask, invoke: Invoke) -> None:
    first, second = alice.reply(TEXT, TEXT)
    alice.begin()
    found = ask("replies")
    assert states(found) == [(str(first), "sending"), (str(second), "pending")]
    assert (found["sending"], found["pending"], found["unknown"], found["given_up"]) == (1, 1, 0, 0)
    assert 0 < found["oldest_wait_s"] < 600
    assert states(ask("replies", "--state", "pending")) == [(str(second), "pending")]
    table = invoke("replies", "--limit", 1).output
    assert "waiting   2, the oldest for" in table
    assert "… and more (--limit)" in table


def test_of_a_user_all_states_are_listed_newest_first(alice: Sends, ask: Ask) -> None:
    given_up, refused, arrived, waits = alice.reply(TEXT, TEXT, TEXT, TEXT)
    alice.give_up()
    alice.settle(alice.begin(), "never", failure="blocked", failure_code="403")
    alice.settle(alice.begin(), "accepted")
    found = ask("replies", "--user", alice.user_id)
    assert states(found) == [
        (str(waits), "pending"),
        (str(arrived), "sent"),
        (str(refused), "failed"),
        (str(given_up), "given_up"),
    ]
    assert (found["replies"][2]["failure"], found["replies"][2]["failure_code"]) == ("blocked", "403")
    assert found["given_up"] == 1
    for state, reply in (("given_up", given_up), ("failed", refused), ("sent", arrived)):
        assert states(ask("replies", "--state", state)) == [(str(reply), state)]
    assert states(ask("replies")) == [(str(waits), "pending")]


def test_a_reply_is_shown_without_its_text_unless_that_is_asked_for(
    alice: Sends, settings: Settings, invoke: Invoke, ask: Ask
) -> None:
    [reply] = alice.reply(TEXT)
    alice.settle(alice.begin(), "accepted")
    shown = invoke("reply", "show", reply).output
    assert "state          sent, after 1 request\n" in shown
    assert f"provider's id  P{reply}" in shown
    assert "text" not in ask("reply", "show", reply)
    environment = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    asked = CliRunner().invoke(onelane, ["reply", "show", str(reply), "--text"], env=environment)
    assert f"text:\n{TEXT}" in asked.output


def test_what_failed_waits_again_and_its_users_lane_is_due(alice: Sends, ask: Ask, services: Services) -> None:
    [reply] = alice.reply(TEXT)
    alice.settle(alice.begin(), "never", failure="blocked")
    services.lanes.client.flushall()
    assert ask("reply", "resend", reply) == {
        "reply_id": str(reply),
        "state_before": "failed",
        "did": True,
        "redis": True,
    }
    assert states(ask("replies")) == [(str(reply), "pending")]
    [score] = services.out_lanes.scores([alice.user_id])
    assert score is not None
    assert ask("reply", "resend", reply, exit_code=1)["did"] is False


def test_what_may_arrive_twice_is_sent_again_only_after_a_yes(
    alice: Sends, settings: Settings, invoke: Invoke, ask: Ask
) -> None:
    [reply] = alice.reply(TEXT)
    alice.give_up()
    environment = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    refused = CliRunner().invoke(onelane, ["reply", "resend", str(reply)], input="n\n", env=environment)
    assert (refused.exit_code, states(ask("replies"))) == (1, [])
    assert "it may arrive twice" in refused.output
    assert invoke("reply", "resend", reply, "--yes").output == f"reply {reply} waits to be sent\n"
    assert states(ask("replies")) == [(str(reply), "pending")]


@pytest.mark.parametrize("state", ["sent", "failed"])
def test_an_operator_says_what_became_of_a_reply_of_which_nobody_knows(
    alice: Sends, invoke: Invoke, ask: Ask, state: str
) -> None:
    [reply] = alice.reply(TEXT)
    alice.give_up()
    assert invoke("reply", "settle", reply, state).output == f"reply {reply} is {state}\n"
    assert ask("reply", "show", reply)["state"] == state
    again = invoke("reply", "settle", reply, state, exit_code=1).output
    assert again == f"reply {reply} is not one of which nobody knows: it is {state}; see onelane reply show\n"


def test_what_waits_is_dropped_and_what_is_being_sent_is_not(alice: Sends, invoke: Invoke, ask: Ask) -> None:
    first, second = alice.reply(TEXT, TEXT)
    alice.begin()
    assert "does not wait, or is being sent" in invoke("reply", "drop", first, exit_code=1).output
    assert invoke("reply", "drop", second).output == f"reply {second} is dropped\n"
    assert states(ask("replies", "--state", "dropped")) == [(str(second), "dropped")]


def test_a_broken_channel_is_named_with_its_cure_and_opened(alice: Sends, invoke: Invoke, ask: Ask) -> None:
    [reply] = alice.reply(TEXT)
    alice.settle(alice.begin(), "broken", failure="denied", failure_code="190")
    [held] = ask("replies")["held"]
    assert (held["channel"], held["word"], held["code"]) == ("demo", "denied", "190")
    shown = invoke("replies").output
    assert ": denied (190);" in shown
    assert "onelane channel open demo" in shown
    assert invoke("channel", "open", "demo").output == "channel demo sends again\n"
    assert ask("replies")["held"] == []
    assert alice.begin()["reply"]["id"] == str(reply)
    assert "no channel of that name" in invoke("channel", "open", "dem", exit_code=1).output


@pytest.mark.usefixtures("services")
def test_a_reply_that_is_none_is_refused_by_every_command(invoke: Invoke) -> None:
    nobody = uuid4()
    for command in (("show",), ("resend",), ("drop",)):
        assert (
            f"there is no reply {nobody}: see onelane replies" in invoke("reply", *command, nobody, exit_code=1).output
        )
    assert "there is no reply" in invoke("reply", "settle", nobody, "sent", exit_code=1).output


def test_a_worker_sends_what_the_bot_says_in_a_demo_channel(
    services: Services, settings: Settings, run_worker: RunWorker, ask: Ask
) -> None:
    demo = settings.model_copy(update={"channels": {"demo": Channel(provider="demo", secrets=(SECRET,))}})
    alice = Sends(services)
    [first] = alice.reply("one")
    with run_worker(demo):
        eventually(lambda: ask("reply", "show", first)["state"] == "sent")
    found = ask("reply", "show", first)
    assert (found["provider_id"], found["requests"], found["failure"]) == (str(first), 1, None)
    assert ask("replies")["replies"] == []
