"""Whatever a conversation goes through, each service takes the history that its model is told: three strict checks."""

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import pytest

from onelane.bot import Line, Message, Role, Session, ToolCall, Turn, User
from onelane.bot.memory import Memory
from onelane.handlers.llm.budget import within_tokens
from onelane.model import JsonObject
from onelane.testing.model_protocols import CHECKS, ProtocolError
from tests.conftest import slow_after

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
TURNS_MAX = 8
RUNS_MAX = int(os.environ.get("ONELANE_TEST_HISTORIES", "2000"))
"""How many runs the slow tests play; 10,000 take five minutes of a core."""
THOUSANDS = [range(at, min(at + 1_000, RUNS_MAX)) for at in range(0, RUNS_MAX, 1_000)]
LIMITS = (1, 2, 3, 5, 50)
IDS = ("call_0", "call_0", "toolu_01", "é" * 70, None)
"""Services give ids of many kinds, and some the same again and again."""
STATES = ("pending", "sent", "failed", "withheld", "read")


class Conversation(Memory):
    """One session: what was committed, what waits, and the steps of the batch at hand."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.lines: list[Line] = []
        self.waiting: list[Message] = []
        self.steps: dict[str, Any] = {}
        self.last = 0

    def history(self, _session_id: UUID, limit: int) -> list[Line]:
        return self.lines[-limit:]

    def tool_output(self, _session_id: UUID, _name: str) -> Any:
        return None

    def newer(self) -> list[Message]:
        newer, self.waiting = self.waiting, []
        return newer

    def known_step(self, key: str) -> tuple[bool, Any]:
        return key in self.steps, self.steps.get(key)

    def keep_step(self, key: str, value: Any) -> Any:
        return self.steps.setdefault(key, value)

    def arrives(self) -> None:
        """Let the user write, or press, or say nothing at all."""
        self.last += 1
        text, button = self.random.choice([("hello", None), ("", "b1"), ("", None), ("  ", None)])
        self.waiting.append(
            Message(id=uuid4(), seq=self.last, text=text, button=button, attachments=(), accepted_at=AT, attempts=0)
        )

    def turn(self, batch: list[Message]) -> Turn:
        user, session = User(uuid4(), "demo", "alice", {}), Session(uuid4(), AT, {})
        return Turn(batch, user, session, self, Event())

    def commits(self, turn: Turn, replies: list[str]) -> None:
        """Store a turn as Postgres does: its messages, its calls, its replies."""
        effects = turn.effects(replies)
        seq = turn.message.seq
        for message in turn.messages:
            self.lines.append(Line(role=Role.USER, seq=message.seq, at=AT, text=message.text, button=message.button))
        for call in effects.get("tool_calls", []):
            kept = ToolCall(id=call["call_id"], name=call["name"], arguments=call["arguments"], output=call["output"])
            self.lines.append(Line(role=Role.TOOL, seq=seq, at=AT, call=kept))
        for reply in effects.get("replies", []):
            state = self.random.choice(STATES)
            self.lines.append(Line(role=Role.BOT, seq=seq, at=AT, text=reply["text"], state=state))
        if not self.random.randrange(6):
            self.lines.append(Line(role=self.random.choice([Role.AGENT, Role.EVENT]), seq=seq, at=AT, event="reaction"))


def runs_of(talk: Conversation) -> Iterator[Turn]:
    """Run a conversation of a model bot, and yield each turn wherever its model is asked."""
    for _ in range(talk.random.randint(1, TURNS_MAX)):
        for _ in range(talk.random.randint(1, 3)):
            talk.arrives()
        size = talk.random.randint(1, len(talk.waiting))
        batch, talk.waiting = talk.waiting[:size], talk.waiting[size:]
        while True:  # it runs until it is committed
            turn = talk.turn(batch)
            yield from _asked(talk, turn)
            match talk.random.choice(["commit", "commit", "crash", "interrupt"]):
                case "commit":
                    talk.commits(turn, talk.random.choices(["You said hello", ""], k=talk.random.randint(0, 2)))
                    talk.steps.clear()
                    break
                case "crash":
                    batch = list(turn.messages)  # what it has taken in stays in
                case "interrupt":
                    talk.arrives()
                    batch, talk.waiting = [*turn.messages, *talk.waiting], []
                    talk.steps.clear()


def _asked(talk: Conversation, turn: Turn) -> Iterator[Turn]:
    yield turn
    for number in range(talk.random.randint(0, 3)):
        name = talk.random.choice(["list_sites", "liste des chantiers", "x" * 90])
        with suppress(ValueError), turn.tool(name, {"n": number}, call_id=talk.random.choice(IDS)) as call:
            if not talk.random.randrange(4):
                raise ValueError("the tool fails, and the bot goes on")
            call.output = turn.step(f"tool {number}", lambda: talk.random.choice([None, "", "text", [1], {"a": "é"}]))
        if not talk.random.randrange(3):
            talk.arrives()
            turn.newer()
        yield turn


def check(turn: Turn, limit: int) -> None:
    """Check what each service is told."""
    for protocol, refuse in CHECKS.items():
        refuse(turn.model_messages(protocol, limit))  # type: ignore[arg-type]
    CHECKS["chat"](within_tokens(turn.model_messages("chat"), 100))


@pytest.mark.parametrize("seeds", slow_after(1, [range(100), *THOUSANDS]))
def test_no_service_refuses_the_history_of_any_run(seeds: range) -> None:
    asked = 0
    for seed in seeds:
        talk = Conversation(seed)
        for turn in runs_of(talk):
            check(turn, talk.random.choice(LIMITS))
            asked += 1
    assert asked > 5 * len(seeds)


@pytest.mark.plants_a_bug
def test_a_history_that_cuts_a_call_from_its_output_is_refused() -> None:
    def parted(messages: list[JsonObject]) -> bool:
        shown = [one for one in messages if one.get("role") != "tool"]
        if shown == messages:
            return False
        with pytest.raises(ProtocolError):
            CHECKS["chat"](shown)
        return True

    assert any(parted(turn.model_messages("chat")) for seed in range(20) for turn in runs_of(Conversation(seed)))
