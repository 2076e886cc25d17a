"""The bot that asks a model, against the fake model's process and a turn that lives in memory."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from pydantic import SecretStr

from onelane.dev.embedded.model import HANDLER, is_wanted
from onelane.dev.init import create
from onelane.errors import Later
from onelane.handlers.llm import ModelBot, ModelSettings
from onelane.handlers.llm.budget import within_tokens
from onelane.handlers.llm.client import gathered
from onelane.history.protocols import ID
from onelane.model import JsonObject, Message
from onelane.testing.fake_model import FakeModel, fake_model
from onelane.testing.fake_model.serving import Fault
from tests.conftest import ROOT
from tests.loops import run


class MemoryTurn:
    """As much of an AsyncTurn as the bot uses; its steps outlive it."""

    idempotency_key = "m1:1"

    def __init__(self, *said: str, steps: dict[str, Any] | None = None) -> None:
        self.said = [{"role": "user", "content": text} for text in said]
        self.steps = {} if steps is None else steps
        self.calls: list[tuple[str, JsonObject, Any]] = []
        self.newer_texts: list[str] = []

    async def model_messages(self, _protocol: str) -> list[JsonObject]:
        return list(self.said)

    async def step(self, key: str, act: Callable[[], Awaitable[Any]]) -> Any:
        if key not in self.steps:
            self.steps[key] = await act()
        return self.steps[key]

    async def newer(self) -> list[Any]:
        texts, self.newer_texts = self.newer_texts, []
        about: JsonObject = {"button": None, "attachments": (), "accepted_at": datetime.now(UTC), "attempts": 0}
        return [Message(id=uuid4(), seq=1, text=text, **about) for text in texts]

    @contextmanager
    def tool(self, name: str, arguments: JsonObject, *, call_id: str) -> Iterator[Any]:
        kept = SimpleNamespace(output=None, id=call_id)
        yield kept
        self.calls.append((name, arguments, kept.output))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeModel]:
    with fake_model(tmp_path_factory.mktemp("model") / "journal") as running:
        yield running


def bot(model: FakeModel, *tools: Callable[..., Any], **settings: Any) -> ModelBot:
    return ModelBot(tools, ModelSettings(base_url=model.base_url, api_key=SecretStr("k"), **settings))


def answer(bot: ModelBot, turn: MemoryTurn) -> str:
    return run(bot.handle(turn))  # type: ignore[arg-type]


def sites(language: str) -> list[str]:
    """List the construction sites."""
    return [f"Champigny ({language})"]


def test_what_the_model_says_is_the_answer(model: FakeModel) -> None:
    assert answer(bot(model), MemoryTurn("hello", "are you there?")) == "You said: hello / are you there?"


def test_a_tool_is_called_with_the_models_arguments_and_its_output_is_told(model: FakeModel) -> None:
    turn = MemoryTurn('sites {"language": "fr"}')
    assert "Champigny (fr)" in answer(bot(model, sites), turn)
    assert turn.calls == [("sites", {"language": "fr"}, ["Champigny (fr)"])]


def test_arguments_that_are_not_right_are_told_to_the_model(model: FakeModel) -> None:
    turn = MemoryTurn("sites {}")
    assert "ValidationError" in answer(bot(model, sites), turn)


class Repeating:
    """A service that gives calls the same id again and again, as some do."""

    def __init__(self, *calls: JsonObject) -> None:
        self.left = list(calls)

    async def ask(self, said: list[JsonObject], _tools: Any, _key: str) -> JsonObject:
        if self.left:
            return {"role": "assistant", "content": None, "tool_calls": [self.left.pop(0)]}
        return {"role": "assistant", "content": " ".join(one["content"] for one in said if one["role"] == "tool")}


def test_calls_that_have_the_same_id_are_made_each(model: FakeModel) -> None:
    def call(language: str) -> JsonObject:
        arguments = json.dumps({"language": language})
        return {"id": "call_0", "type": "function", "function": {"name": "sites", "arguments": arguments}}

    asking = bot(model, sites)
    vars(asking)["_client"] = Repeating(call("fr"), call("de"), call("de"))
    said = answer(asking, MemoryTurn("hello"))
    assert said == '["Champigny (fr)"] ["Champigny (de)"] ["Champigny (de)"]'


def test_a_call_without_an_id_gets_one_of_its_own() -> None:
    async def stream() -> AsyncIterator[Any]:
        for delta in ({"tool_calls": [{"index": 0, "function": {"name": "sites", "arguments": "{}"}}]}, {}):
            yield SimpleNamespace(data=json.dumps({"choices": [{"delta": delta}]}))
        yield SimpleNamespace(data="[DONE]")

    [first], [second] = (run(gathered(stream()))["tool_calls"] for _ in range(2))
    assert first["id"] != second["id"]
    assert all(ID.fullmatch(one["id"]) for one in (first, second))


def test_what_comes_meanwhile_is_told_between_two_calls(model: FakeModel) -> None:
    turn = MemoryTurn('sites {"language": "fr"}')
    turn.newer_texts = ["no, in Paris"]
    assert "no, in Paris" in answer(bot(model, sites), turn)


def test_a_turn_that_runs_again_asks_nothing_twice(model: FakeModel) -> None:
    steps: dict[str, Any] = {}
    first = answer(bot(model, sites), MemoryTurn('sites {"language": "fr"}', steps=steps))
    asked = len(model.asked())
    assert answer(bot(model, sites), MemoryTurn('sites {"language": "fr"}', steps=steps)) == first
    assert len(model.asked()) == asked


@pytest.mark.parametrize(
    ("fault", "waits_s"),
    [
        (Fault(status=429, retry_after_s=7), 7),
        (Fault(status=503), 10),
        (Fault(status=520), 10),
        (Fault(status=500), 10),
    ],
)
def test_a_service_that_cannot_answer_now_makes_the_turn_wait(model: FakeModel, fault: Fault, waits_s: float) -> None:
    model.plan(fault)
    with pytest.raises(Later) as waits:
        answer(bot(model), MemoryTurn("hello"))
    assert waits.value.seconds == waits_s


@pytest.mark.parametrize("cut", ["half", "silent", "garbage"])
def test_half_an_answer_is_none(model: FakeModel, cut: str) -> None:
    model.plan(Fault(cut=cut))
    with pytest.raises((Later, TimeoutError, httpx2.TransportError)):
        answer(bot(model, timeout_s=1), MemoryTurn("hello"))


def test_a_wrong_key_says_which_setting_is_wrong(model: FakeModel) -> None:
    model.plan(Fault(status=401))
    with pytest.raises(RuntimeError, match="LLM_API_KEY"):
        answer(bot(model), MemoryTurn("hello"))


def test_a_model_that_only_calls_tools_ends_after_the_last_step(model: FakeModel) -> None:
    assert answer(bot(model, sites, steps_max=1), MemoryTurn("sites {}")).startswith("I could not finish")


def test_the_oldest_exchanges_are_left_out_whole() -> None:
    call: JsonObject = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    exchanges: list[list[JsonObject]] = [
        [{"role": "user", "content": "a" * 300}, call, {"role": "tool", "tool_call_id": "1", "content": "x"}],
        [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}],
        [{"role": "user", "content": "d"}, {"role": "user", "content": "e"}],
    ]
    everything = [message for exchange in exchanges for message in exchange]
    assert within_tokens(everything, 10_000) == everything
    assert within_tokens(everything, 100) == exchanges[1] + exchanges[2]
    assert within_tokens(everything, 1) == exchanges[2]


@pytest.mark.parametrize("own", [{"LLM_BASE_URL": "https://model.example/v1"}, {"LLM_API_KEY": "k"}])
def test_nobody_with_a_model_of_his_own_gets_the_fake_one(own: dict[str, str]) -> None:
    assert is_wanted((HANDLER,), {})
    assert not is_wanted((HANDLER,), own)


def test_a_bot_that_init_writes_with_a_model_gets_the_fake_one_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    create("asker", tmp_path, with_model=True)
    (tmp_path / "plain.py").write_text("def handle(turn): ...")
    assert is_wanted(("plain:handle", "asker:handle"), {})
    assert not is_wanted(("plain:handle", "nowhere:handle"), {})


def test_an_empty_setting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ModelSettings.model_fields:
        monkeypatch.setenv(f"LLM_{name.upper()}", "")
    assert ModelSettings() == ModelSettings.model_construct()


def test_the_settings_are_shown_with_their_defaults() -> None:
    shown = dict(re.findall(r"^# (LLM_\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    defaults = {f"LLM_{name.upper()}": field.default for name, field in ModelSettings.model_fields.items()}
    assert shown == {name: "" if name == "LLM_API_KEY" else str(default) for name, default in defaults.items()}
    handlers = (ROOT / "docs" / "HANDLERS.md").read_text()
    assert [name for name in defaults if f"`{name}`" not in handlers] == []
