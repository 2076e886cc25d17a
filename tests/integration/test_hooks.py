"""What a bot's module may have beside its handler: what opens a session, and what is said when a message dies."""

import os
from uuid import UUID

import pytest

from onelane.bootstrap import Services
from onelane.bot import AsyncTurn, Failure, Turn
from onelane.config import Settings
from onelane.turns.bots import Bot
from tests.conftest import Accept, LogLines
from tests.rows import Rows
from tests.working_off import work_off


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    channel = settings.channels["demo"].model_copy(update={"poison": "apologise", "apology": "Sorry."})
    return settings.model_copy(update={"attempts_max": 2, "retry_base_s": 0.01, "channels": {"demo": channel}})


def handle(turn: Turn) -> str:
    if turn.message.text == "bye":
        turn.end_session()
    if turn.message.text == "fail":
        raise ValueError
    return turn.message.text


def greet(turn: Turn) -> str:
    return f"welcome to {turn.message.text}"


def comfort(turn: Turn, failure: Failure) -> str:
    turn.escalate()
    return f"A colleague will look at {turn.message.text} ({failure.error.splitlines()[-1]})."


def test_on_start_speaks_first_in_each_session_and_in_no_other_turn(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    user_id = accept("alice", "one").user_id
    for text in ("bye", "three", "four"):
        accept("alice", text)
    work_off(services, settings, Bot(handle, on_start=greet))
    assert rows.texts(user_id) == ["welcome to one", "one", "bye", "welcome to three", "three", "four"]


def test_async_functions_are_awaited_one_after_the_other(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    async def greet_async(turn: AsyncTurn) -> str:
        turn.save_tool_output("greeted", "yes")
        return "welcome"

    async def handle_async(turn: AsyncTurn) -> str:
        return str(await turn.tool_output("greeted"))

    user_id = accept("alice", "one").user_id
    work_off(services, settings, Bot(handle_async, on_start=greet_async))
    assert rows.texts(user_id) == ["welcome", "yes"]


def _dies(rows: Rows, services: Services, settings: Settings, accept: Accept, bot: Bot) -> UUID:
    user_id = accept("alice", "fail").user_id
    work_off(services, settings, bot)
    assert rows.states(user_id) == ["dead"]
    return user_id


def test_on_failed_speaks_when_a_message_dies_and_what_it_does_is_committed_with_that(
    rows: Rows, services: Services, impatient: Settings, accept: Accept, log_lines: LogLines
) -> None:
    asked = []

    def comforts(turn: Turn, failure: Failure) -> str:
        asked.append(turn.message.attempts)
        return comfort(turn, failure)

    user_id = _dies(rows, services, impatient, accept, Bot(handle, on_failed=comforts))
    assert rows.texts(user_id) == ["A colleague will look at fail (ValueError)."]
    assert rows.sessions(user_id)[0].status == "escalated"
    assert asked == [1], "once, and not before the last attempt"
    ended = [line["outcome"] for line in log_lines if line["event"] == "turn_ended"]
    assert ended == ["retry", "dead"]


def test_where_on_failed_itself_fails_the_channels_policy_decides(
    rows: Rows, services: Services, impatient: Settings, accept: Accept
) -> None:
    def fails_too(turn: Turn, failure: Failure) -> str:
        raise ValueError

    def says_what_cannot_be_stored(turn: Turn, failure: Failure) -> None:
        turn.save_tool_output("n", "x" * 10)
        turn.session.state["n"] = "\0"

    for on_failed in (fails_too, says_what_cannot_be_stored):
        assert rows.texts(_dies(rows, services, impatient, accept, Bot(handle, on_failed=on_failed)))[-1:] == ["Sorry."]
        rows.empty()


def test_of_a_message_that_runs_apart_on_failed_runs_apart_as_well(
    rows: Rows, services: Services, impatient: Settings, accept: Accept
) -> None:
    message = accept("alice", str(os.getpid()))
    rows.note_deaths(message.message_id, 2)
    work_off(services, impatient.model_copy(update={"handler": "tests.comforting:handle", "attempts_max": 1}))
    assert rows.texts(message.user_id) == ["ValueError, said here"]
