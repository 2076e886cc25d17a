"""The bot: it asks a model, runs the tools that the model calls, and asks again."""

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError, validate_call

from onelane.bot import AsyncTurn
from onelane.bot.storable import STEP_KEY_MAX
from onelane.handlers.llm.budget import within_tokens
from onelane.handlers.llm.client import ModelClient, ModelSettings, object_in
from onelane.history import PROTOCOLS, line_of
from onelane.model import JsonObject

UNFINISHED: Final = "I could not finish that. Please ask again in other words."

Tool = Callable[..., Any]


class ModelBot:
    """A handler with a model, and with tools that the model may call."""

    def __init__(self, tools: Sequence[Tool] = (), settings: ModelSettings | None = None) -> None:
        """Take functions whose parameters have types, and whose docstrings tell the model what they do."""
        self._tools = {tool.__name__: tool for tool in tools}
        self._described = [_described(tool) for tool in tools]
        self._given = settings

    async def handle(self, turn: AsyncTurn) -> str:
        """Answer a batch; what comes meanwhile is told to the model between its calls."""
        said = [
            {"role": "system", "content": self._settings.system_prompt},
            *within_tokens(await turn.model_messages("chat"), self._settings.history_tokens),
        ]
        for _ in range(self._settings.steps_max):
            step = f"model {len(said)}"
            key = f"{turn.idempotency_key}:{step}"
            message = await turn.step(step, partial(self._client.ask, said, self._described, key))
            if not message.get("tool_calls"):
                return str(message["content"] or UNFINISHED)
            said = [*said, message]
            for call in message["tool_calls"]:
                output = await self._output(turn, call, f"tool {len(said)} {call['id']}"[:STEP_KEY_MAX])
                said.append({"role": "tool", "tool_call_id": call["id"], "content": output})
            said += PROTOCOLS["chat"]([line_of(newer) for newer in await turn.newer()])
        return UNFINISHED

    async def _output(self, turn: AsyncTurn, call: JsonObject, step: str) -> str:
        """Call a tool, once. Its call and its output are kept together; some services give each the same id."""
        name, arguments = call["function"]["name"], object_in(call["function"]["arguments"])
        with turn.tool(name, arguments, call_id=call["id"]) as kept:
            kept.output = await turn.step(step, partial(self._called, name, arguments))
        return kept.output if isinstance(kept.output, str) else json.dumps(kept.output, ensure_ascii=False)

    async def _called(self, name: str, arguments: JsonObject) -> Any:
        """Return what the tool does; that there is none, or what it says of its arguments, is told to the model."""
        tool = self._tools.get(name)
        if tool is None:
            return {"error": f"there is no tool {name}"}
        try:
            if inspect.iscoroutinefunction(tool):
                return await validate_call(tool)(**arguments)
            return await asyncio.to_thread(validate_call(tool), **arguments)
        except (ValidationError, TypeError, ValueError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    @cached_property
    def _settings(self) -> ModelSettings:
        return self._given or ModelSettings()

    @cached_property
    def _client(self) -> ModelClient:
        return ModelClient(self._settings)


def _described(tool: Tool) -> JsonObject:
    parameters = TypeAdapter(tool).json_schema()  # type: ignore[arg-type]  # pydantic takes functions
    function = {"name": tool.__name__, "description": inspect.getdoc(tool) or "", "parameters": parameters}
    return {"type": "function", "function": function}
