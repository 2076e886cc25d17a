"""A bot under test gets the same in memory as on real servers: each scenario is played on both, and compared."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from onelane import AsyncTurn, Attachment, AttachmentKind, Button, Message, Reply, Turn, Upload
from onelane.model import Failure
from onelane.testing import Answer, Bot, Person

T0 = datetime(2031, 3, 29, 12, tzinfo=UTC)
"""The next night has no 02:30 in Paris."""
CHANNEL = {
    "day_start": "02:30",
    "timezone": "Europe/Paris",
    "idle_timeout_s": 25_200,
    "max_age_s": 50_000,
    "escalation_timeout_s": 3_600,
    "poison": "apologise",
    "interrupt_max": 2,
    "busy_reply": "one moment",
}
Scenario = Callable[[Bot, Person], list[Answer]]


VALUE: Any = {
    "tuple": (1, 2),
    "key": {42: "int", True: "bool", None: "none"},
    "b": 1e22,
    "a": [0.5, 1e-7, -0.0],
    "é": 1,
}
"""What JSON has otherwise, or in another order."""


class Talker:
    """Does what the newest message's first word says, and counts what it does."""

    def __init__(self) -> None:
        self.effects = 0

    def __call__(self, turn: Turn) -> Any:
        word, _, rest = turn.message.text.partition(" ")
        act: Callable[[Turn, str], Any] | None = getattr(self, f"do_{word.lower()}", None)
        return act(turn, rest) if act else " + ".join(message.text for message in turn.messages)

    def do_count(self, turn: Turn, rest: str) -> str:
        turn.session.state["n"] = turn.session.state.get("n", 0) + 1
        turn.user.state["n"] = turn.user.state.get("n", 0) + 1
        return f"{turn.session.state['n']} {turn.user.state['n']} {turn.is_first}"

    def do_ask(self, turn: Turn, rest: str) -> list[str | Reply]:
        return ["listen", Reply("Which?", buttons=[Button(id="fr", title="French"), Button(id="de", title="German")])]

    def do_french(self, turn: Turn, rest: str) -> str:
        return f"pressed {turn.message.button}"

    def do_history(self, turn: Turn, rest: str) -> str:
        return " | ".join(f"{line.role}:{line.text or (line.call and line.call.output)}" for line in turn.history())

    def do_tool(self, turn: Turn, rest: str) -> str:
        with turn.tool("look", {"at": rest}) as use:
            use.output = {"found": turn.tool_output("look")}
        return str(turn.tool_output("look"))

    def do_step(self, turn: Turn, rest: str) -> str:
        return f"step {turn.step('pay', self._effect)} {turn.message.deaths}"

    def do_fail(self, turn: Turn, rest: str) -> str:
        if turn.message.attempts < int(rest):
            raise ValueError
        return f"after {turn.message.attempts} of {len(turn.messages)}"

    def do_bye(self, turn: Turn, rest: str) -> str:
        turn.end_session(summary=rest)
        return f"bye after {turn.previous_summary}"

    def do_human(self, turn: Turn, rest: str) -> str:
        turn.escalate()
        return "a human comes"

    def do_newer(self, turn: Turn, rest: str) -> str:
        return f"newer {[message.text for message in turn.newer()]}"

    def do_shield(self, turn: Turn, rest: str) -> str:
        with turn.shield():
            return "shielded"

    def do_file(self, turn: Turn, rest: str) -> str:
        return f"{[(file.kind, file.content_type) for file in turn.message.attachments]}"

    def do_fetch(self, turn: Turn, rest: str) -> str:
        return f"{[turn.fetch(file).content for file in turn.message.attachments]}"

    def do_put(self, turn: Turn, rest: str) -> str:
        turn.session.state["put"] = turn.user.state["put"] = VALUE
        with turn.tool("put", VALUE) as use:
            use.output = VALUE
        return repr(turn.step("put", lambda: VALUE))

    def do_show(self, turn: Turn, rest: str) -> list[str]:
        calls = [(line.call.arguments, line.call.output) for line in turn.history() if line.call]
        return [repr(one) for one in (turn.session.state, turn.user.state, turn.tool_output("put"), calls)]

    def do_spoil(self, turn: Turn, rest: str) -> None:
        for line in turn.history():
            if line.call:
                line.call.output.clear()

    def do_nothing(self, turn: Turn, rest: str) -> None:
        return None

    def _effect(self) -> int:
        self.effects += 1
        return self.effects


async def answer(turn: AsyncTurn) -> str:
    said = " + ".join(message.text for message in turn.messages)
    return f"{said} {len(await turn.history())} {await turn.step('one', _one)}"


async def _one() -> int:
    return 1


def words(bot: Bot, alice: Person) -> list[Answer]:
    said = [alice.says("a"), alice.says("count", "nothing", "count", "b"), alice.redelivers(), alice.says("history")]
    edited = [
        alice.says("c"),
        alice.edits("d"),
        alice.edits("e"),
        alice.says("history"),
        alice.deletes(),
        alice.says("history"),
    ]
    return [*said, alice.says("ask"), alice.presses("fr"), *edited, alice.says("tool x", "tool y", "history")]


def values(bot: Bot, alice: Person) -> list[Answer]:
    bot.crashes_next(after="handler")
    return [alice.says("put"), alice.says("show", "spoil", "show")]


def files(bot: Bot, alice: Person) -> list[Answer]:
    photos = [
        Attachment(url=f"https://a.example/{n}.jpg", kind=AttachmentKind.IMAGE, content_type="image/jpeg")
        for n in range(2)
    ]
    return [alice.sends(*photos, text="file"), alice.sends(photos[0], text="file")]


def uploads(bot: Bot, alice: Person) -> list[Answer]:
    """Files by their bytes; the last is nobody's."""
    photo, note = (Upload(data=name.encode(), name=name, content_type="image/jpeg") for name in ("a.jpg", "b.jpg"))
    said = [alice.sends(photo, text="fetch"), alice.sends(note, text="fetch")]
    nobodys = Attachment(url="https://a.example/c.jpg", id="7", kind=AttachmentKind.IMAGE)
    return [*said, alice.sends(nobodys, text="fetch")]


def sessions(bot: Bot, alice: Person) -> list[Answer]:
    said = [alice.says("count")]
    for hours in (6.999, 7, 6, 6, 2, 1):  # idle, idle, …, too old
        bot.clock.passes(hours=hours)
        said.append(alice.says("count"))
    for shown in ("02:00", "03:00", "02:29", "02:30"):  # one night has a gap, and begins at 03:00
        bot.clock.until(shown)
        said.append(alice.says("count"))
    said += [alice.says("bye one"), alice.says("bye two"), alice.says("/new"), alice.says("a", "/NEW ", "count")]
    return said


def humans(bot: Bot, alice: Person) -> list[Answer]:
    said = [alice.says("human"), alice.says("a", "bye x")]
    alice.hand_back()
    said += [alice.says("history"), alice.says("human", "b")]
    bot.clock.passes(hours=1)
    return [*said, alice.says("c", "history")]


def failures(bot: Bot, alice: Person) -> list[Answer]:
    return [alice.says("fail 1"), alice.says("a", "fail 9", "b"), alice.says("history")]


def other_names(bot: Bot, alice: Person) -> list[Answer]:
    return [alice.says("count"), alice.becomes("somebody"), alice.says("count"), bot.user("carol").says("count")]


def hooked(bot: Bot, alice: Person) -> list[Answer]:
    said = [alice.says("count"), alice.edits("b"), alice.says("fail 9", "history")]
    return [*said, alice.says("human"), alice.edits("c"), alice.says("/new", "count", "history")]


def refused(bot: Bot, alice: Person) -> list[Answer]:
    bot.reply_fails_next()
    return [alice.says("ask", "history"), alice.says("a", "history")]


def lost(bot: Bot, alice: Person) -> list[Answer]:
    bot.reply_is_lost_next()
    said = [alice.says("ask"), alice.says("a")]
    bot.reply_is_lost_next()
    return [*said, alice.says("b", "c"), alice.says("history")]


def rejected(bot: Bot, alice: Person) -> list[Answer]:
    """The first time no session is open."""
    said = [alice.says("a", "b", "/new", "c"), alice.says("d", "e"), alice.says("f")]
    for text in ("newer", "fail 1", "human"):
        alice.types_over("b", "c")
        said.append(alice.says(text))
    said.append(alice.says("a", "b"))  # to a human
    alice.hand_back()
    bot.crashes_next(after="handler")
    said += [alice.says("step", "b"), alice.says("bye", "c")]
    bot.clock.passes(hours=8)
    return [*said, alice.says("fail 9", "d"), alice.says("history")]


def on_event(turn: Turn, event: Message) -> str:
    return f"{event.event} {event.text}"


def on_start(turn: Turn) -> str:
    return f"welcome {turn.is_first}"


def on_failed(turn: Turn, failure: Failure) -> str:
    turn.user.state["failed"] = True
    return f"sorry {bool(failure.error)}"


def deaths(bot: Bot, alice: Person) -> list[Answer]:
    bot.crashes_next(after="handler")
    said = [alice.says("step")]
    bot.crashes_next(after="commit")
    return [*said, alice.says("step", "count"), alice.says("history")]


def typed_over(bot: Bot, alice: Person, *others: str) -> list[Answer]:
    said = []
    for text in ("a", "count", *others):
        alice.types_over("b", "c")
        said.append(alice.says(text))
    return [*said, alice.says("history")]


def typed_over_more(bot: Bot, alice: Person) -> list[Answer]:
    """What depends on when an interruption is noticed, where there are such."""
    return typed_over(bot, alice, "newer", "shield", "fail 1")


def bursts(bot: Bot, alice: Person) -> list[Answer]:
    said = [alice.says("a", "b", "c"), alice.says("a", "/new", "b", "c"), alice.says("a", "fail 9", "c")]
    bot.crashes_next(after="handler")
    return [*said, alice.says("a", "step"), alice.says("history")]


Played = tuple[str, list[Scenario], Callable[[], Any]]
FEW: list[Played] = [("queue", [words, humans, values], Talker)]
ALL: list[Played] = [
    ("queue", [files, uploads, sessions, failures, other_names, typed_over_more, deaths], Talker),
    ("collect", [bursts, typed_over_more, sessions], Talker),
    ("interrupt", [typed_over, bursts], Talker),
    ("interrupt", [typed_over, words], lambda: answer),
    ("queue", [hooked], Talker),
    ("reject", [rejected, words], Talker),
]
HOOKS: dict[str, Callable[..., Any]] = {"on_event": on_event, "on_start": on_start, "on_failed": on_failed}
NO_HOOKS = dict.fromkeys(HOOKS)


def seen(bot: Bot, person: Person, answers: list[Answer]) -> dict[str, Any]:
    numbers = {one.id: number for number, one in enumerate(person.sessions)}
    return {
        "answers": [(list(one), str(one.outcome), one.session and numbers.get(one.session.id)) for one in answers],
        "failures": [len(one.failures) for one in answers],
        "state": person.state,
        "sessions": [one.model_dump(exclude={"id"}) for one in person.sessions],
        "lines": [line.model_dump(exclude={"state", "call"}) for line in person.lines],
        "calls": [call.model_dump(exclude={"id"}) for call in person.tool_calls],
        "replies": [line.state for line in person.replies],
    }


def played(bot: Bot, scenario: Scenario) -> dict[str, Any]:
    bot.clock.now = max(bot.clock.now, T0)
    alice = bot.user(f"alice {scenario.__name__}")
    return seen(bot, alice, scenario(bot, alice))


def compare(on_busy: Any, scenarios: list[Scenario], make: Callable[[], Any]) -> None:
    effects = []
    outcomes = []
    for real in (False, True):
        handle = make()
        hooks: Any = HOOKS if hooked in scenarios else NO_HOOKS
        with Bot(handle, hooks=hooks, on_busy=on_busy, channel=CHANNEL, real=real, attempts_max=3) as bot:
            outcomes.append([played(bot, scenario) for scenario in scenarios])
        effects.append(getattr(handle, "effects", None))
    for scenario, in_memory, on_servers in zip(scenarios, *outcomes, strict=True):
        for what, found in on_servers.items():
            assert in_memory[what] == found, (scenario.__name__, what)
    assert effects[0] == effects[1]


@pytest.mark.parametrize(("on_busy", "scenarios", "make"), FEW)
def test_memory_keeps_the_promises_of_the_servers(on_busy: Any, scenarios: list[Scenario], make: Any) -> None:
    compare(on_busy, scenarios, make)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "scenarios"),
    [("standard", [lost]), *((name, [refused, lost, uploads]) for name in ("meta", "slack", "telegram", "twilio"))],
)
def test_each_provider_refuses_and_loses_a_reply_in_memory_as_its_fake_does(
    provider: str, scenarios: list[Scenario]
) -> None:
    found = []
    for real in (False, True):
        with Bot(Talker(), hooks=HOOKS, channel={"provider": provider}, real=real) as bot:
            found.append([played(bot, scenario) for scenario in scenarios])
    for scenario, in_memory, on_servers in zip(scenarios, *found, strict=True):
        assert in_memory == on_servers, scenario.__name__


@pytest.mark.slow
@pytest.mark.parametrize(("on_busy", "scenarios", "make"), ALL)
def test_memory_batches_and_survives_as_the_servers_do(on_busy: Any, scenarios: list[Scenario], make: Any) -> None:
    compare(on_busy, scenarios, make)
