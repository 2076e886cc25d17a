"""Which function handles what: each channel's bot, its function for messages and the one for events."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from onelane.bot import AsyncTurn, Turn
from onelane.model import Message, TurnRead
from onelane.policy import Policy
from onelane.turns.bots import Act, Bot, Bots
from onelane.turns.handler_threads import HandlerThreads, LeaseThread
from onelane.turns.hosting import Host
from tests import loops
from tests.unit.test_hosting import Gated, a_holding, replies, turn_read


def handle(turn: Turn) -> str:
    return "a message"


def on_event(turn: Turn, event: Message) -> str:
    assert event is turn.message
    return f"{event.event}, {event.quoted}"


async def on_event_async(turn: AsyncTurn, event: Message) -> str:
    return f"{event.event}, {await turn.history(3)}"


def event_read() -> TurnRead:
    now = datetime.now(UTC)
    event = Message(
        id=uuid4(),
        seq=1,
        text="",
        button=None,
        attachments=(),
        accepted_at=now,
        attempts=0,
        kind="event",
        event="reaction",
        quoted="m1",
    )
    return turn_read("").model_copy(update={"messages": (event,)})


def policy_of(channel: str) -> Policy:
    return Policy(
        channel=channel, idle_timeout_s=1, day_start=None, timezone=None, max_age_s=None, escalation_timeout_s=1
    )


def run(act: Act | None, read: TurnRead) -> list[str]:
    assert act is not None
    memory = Gated()
    memory.gate.set()
    return replies(loops.run(Host(30).run(act, read, memory, a_holding(), LeaseThread(HandlerThreads()))))


@pytest.mark.parametrize(
    ("function", "answer"), [(on_event, "reaction, m1"), (on_event_async, "reaction, [3]")], ids=["sync", "async"]
)
def test_an_event_goes_to_the_function_for_events_and_a_message_to_the_handler(function: object, answer: str) -> None:
    bots = Bots(Bot(handle, function))  # type: ignore[arg-type]
    read = event_read()
    assert run(bots.act_for(read), read) == [answer]
    assert run(bots.act_for(turn_read("hello")), turn_read("hello")) == ["a message"]


def test_a_module_without_a_function_for_events_handles_none() -> None:
    assert Bots(Bot(handle)).act_for(event_read()) is None


def test_each_channel_has_its_own_bot_and_any_other_channel_the_default() -> None:
    own = Bots(Bot(handle, on_event), {"demo": Bot(lambda _: "demo's")})
    assert run(own.act_for(turn_read("hello")), turn_read("hello")) == ["demo's"]
    assert [own.completed(policy_of(channel)).wants_events for channel in ("demo", "gone")] == [False, True]


def test_threads_are_started_beforehand_only_where_a_used_function_may_block() -> None:
    async def never_blocks(turn: AsyncTurn) -> None: ...

    assert [Bots(Bot(function)).block for function in (handle, never_blocks)] == [True, False]
    assert not Bots(Bot(handle), {"demo": Bot(never_blocks)}).block
