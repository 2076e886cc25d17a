"""A bot under test, in memory: what its author's tests see."""

import asyncio

import pytest

from onelane import AsyncTurn, Button, Later, Message, Reply, Turn, Upload
from onelane.testing import Bot, Outcome


def count(turn: Turn) -> str:
    turn.session.state["n"] = turn.session.state.get("n", 0) + 1
    turn.user.state["n"] = turn.user.state.get("n", 0) + 1
    return f"{turn.message.text} {turn.session.state['n']} {turn.user.state['n']}"


def test_what_somebody_says_is_answered_in_order_and_states_are_kept() -> None:
    alice, bob = (bot := Bot(count)).user("alice"), bot.user("bob")
    assert alice.says("a") == ["a 1 1"]
    assert alice.says("b", "c") == ["b 2 2", "c 3 3"]
    assert bob.says("d") == ["d 1 1"]
    assert alice.state == {"n": 3}
    assert alice.session is not None
    assert alice.session.state == {"n": 3}
    assert [line.text for line in alice.replies] == ["a 1 1", "b 2 2", "c 3 3"]


def test_what_is_delivered_again_is_not_answered_again() -> None:
    alice = Bot(count).user("alice")
    alice.says("a")
    again = alice.redelivers()
    assert (again, again.outcome) == ([], Outcome.DUPLICATE)
    assert alice.says("b") == ["b 2 2"]


def test_a_worker_that_dies_loses_and_doubles_nothing() -> None:
    alice = (bot := Bot(count)).user("alice")
    bot.crashes_next(after="handler")
    assert alice.says("a") == ["a 1 1"]
    bot.crashes_next(after="commit")
    assert alice.says("b") == ["b 2 2"]


def test_sessions_end_by_idle_time_by_day_and_by_word() -> None:
    channel = {"day_start": "04:00", "timezone": "Europe/Paris"}
    alice = (bot := Bot(count, channel=channel)).user("alice")
    bot.clock.until("23:00")
    alice.says("a")
    bot.clock.until("00:05")
    assert alice.says("b") == ["b 2 2"]
    bot.clock.until("04:00")
    assert alice.says("c") == ["c 1 3"]
    bot.clock.passes(hours=8)
    assert alice.says("d", "/new", "e") == ["d 1 4", "e 1 5"]
    assert [one.ended_reason for one in alice.sessions] == ["end_of_day", "timeout", "user_request", None]


def test_a_failure_shows_where_it_was_and_what_was_said() -> None:
    def fail(_turn: Turn) -> str:
        raise ValueError("no such city")

    alice = Bot(fail, attempts_max=2).user("alice")
    answer = alice.says("a")
    assert answer.outcome is Outcome.DEAD
    assert len(answer.failures) == 2
    assert "no such city" in repr(answer)
    assert "test_testing_bot.py" in repr(answer)


def test_a_button_comes_with_its_title() -> None:
    def ask(turn: Turn) -> Reply | str:
        if turn.message.button:
            return f"{turn.message.button} {turn.message.text}"
        return Reply("Which?", buttons=[Button(id="fr", title="French")])

    alice = Bot(ask).user("alice")
    assert alice.says("a").replies[0].buttons == (Button(id="fr", title="French"),)
    assert alice.presses("fr") == ["fr French"]


@pytest.mark.parametrize("provider", ["demo"])
def test_who_has_another_id_is_the_same_person(provider: str) -> None:
    alice = Bot(count, channel={"provider": provider}).user("alice")
    alice.says("a")
    alice.becomes("alice, later")
    assert alice.says("b") == ["b 2 2"]


async def slow(turn: AsyncTurn) -> str:
    """Be interrupted where it first waits, unless it has shielded itself."""
    RUNS.append(turn.message.text)
    if turn.message.text == "pay":
        with turn.shield():
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    RUNS.append("waited")
    return " + ".join(message.text for message in turn.messages)


RUNS: list[str] = []


def test_an_async_turn_is_interrupted_where_it_first_waits_and_not_where_it_is_shielded() -> None:
    alice = Bot(slow, on_busy="interrupt").user("alice")
    RUNS.clear()
    alice.types_over("b")
    assert alice.says("a") == ["a + b"]
    assert RUNS == ["a", "b", "waited"]
    alice.types_over("c")
    assert alice.says("pay") == ["pay", "c"]


def test_who_has_a_human_is_not_told_that_the_bot_is_busy() -> None:
    def hand_over(turn: Turn) -> None:
        turn.escalate()

    alice = Bot(hand_over, on_busy="reject", channel={"busy_reply": "one moment"}).user("alice")
    alice.says("a")
    assert alice.says("b", "c") == []
    assert [line.state for line in alice.lines] == ["processed"] * 3


def test_a_handler_that_asks_for_later_runs_again_when_its_time_has_come() -> None:
    def wait(turn: Turn) -> str:
        if not turn.message.laters:
            raise Later(60)
        return "now"

    alice = (bot := Bot(wait)).user("alice")
    assert alice.says("a").outcome is Outcome.WAITING
    bot.clock.passes(seconds=59)
    assert alice.gets() == []
    bot.clock.passes(seconds=1)
    assert alice.gets() == ["now"]
    assert bot.failures == []


def test_a_file_that_was_sent_by_its_bytes_can_be_fetched() -> None:
    def measure(turn: Turn) -> str:
        [file] = turn.message.attachments
        return f"{file.kind} {turn.fetch(file).content!r}"

    photo = Upload(data=b"pixels", name="cat.jpg", content_type="image/jpeg")
    assert Bot(measure).user("alice").sends(photo) == ["image b'pixels'"]


def test_a_reply_to_a_failure_that_fails_too_makes_no_event() -> None:
    events = []

    def on_event(_turn: Turn, event: Message) -> Reply:
        events.append(event.event)
        assert len(events) < 3
        return Reply(template={"name": "sorry"})  # Telegram has none

    bot = Bot(count, hooks={"on_event": on_event}, channel={"provider": "telegram"})
    bot.reply_fails_next()
    assert bot.user("alice").says("a").outcome is Outcome.PROCESSED
    assert events == ["reply_failed"]
    bot.reply_fails_next()
    bot.user("alice").says("b")
    assert events == ["reply_failed"] * 2
