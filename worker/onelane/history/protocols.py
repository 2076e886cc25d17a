"""What a model is given of a history, in the shapes of three protocols. Pure functions of its lines.

All three refuse a call without its output; here a call and its output are one line, and become two messages. Calls
stand one by one, in the order in which they were made.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import count
from typing import Any, Final, Literal

from onelane.history.lines import Line, Said, ToolCall, told
from onelane.model import JsonObject

Protocol = Literal["chat", "responses", "anthropic"]

ID: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
"""The ids that all of them take."""
ID_LENGTH: Final = 32
NAME_MAX: Final = 64
BEFORE: Final = "(The conversation goes on.)"
"""Said by the user, where a protocol lets nobody else begin."""


def chat(lines: Sequence[Line]) -> list[JsonObject]:
    """Return messages of OpenAI's Chat Completions, and of all that speak like it."""
    messages: list[JsonObject] = []
    for said in _told(lines):
        if isinstance(said, Said):
            messages.append({"role": "assistant" if said.is_ours else "user", "content": said.text})
        else:
            function = {"name": said.name, "arguments": json.dumps(said.arguments)}
            call = {"id": said.id, "type": "function", "function": function}
            messages += [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call["id"], "content": _output(said)},
            ]
    return messages


def responses(lines: Sequence[Line]) -> list[JsonObject]:
    """Return input items of OpenAI's Responses."""
    items: list[JsonObject] = []
    for said in _told(lines):
        if isinstance(said, Said):
            items.append({"role": "assistant" if said.is_ours else "user", "content": said.text})
        else:
            call = {"type": "function_call", "call_id": said.id, "name": said.name}
            items += [
                {**call, "arguments": json.dumps(said.arguments)},
                {"type": "function_call_output", "call_id": call["call_id"], "output": _output(said)},
            ]
    return items


def anthropic(lines: Sequence[Line]) -> list[JsonObject]:
    """Return messages of Anthropic's Messages: the user begins, roles alternate, a result comes at once."""
    messages: list[JsonObject] = []
    for said in _told(lines):
        if isinstance(said, Said):
            _append(messages, "assistant" if said.is_ours else "user", {"type": "text", "text": said.text})
        else:
            call = said.id
            _append(messages, "assistant", {"type": "tool_use", "id": call, "name": said.name, "input": said.arguments})
            _append(messages, "user", {"type": "tool_result", "tool_use_id": call, "content": _output(said)})
    return messages


PROTOCOLS: Final[Mapping[Protocol, Callable[[Sequence[Line]], list[JsonObject]]]] = {
    "chat": chat,
    "responses": responses,
    "anthropic": anthropic,
}


def _append(messages: list[JsonObject], role: str, block: JsonObject) -> None:
    """Add a block to the last message, if that has the same role; else in a message of its own."""
    if not messages and role != "user":
        messages.append({"role": "user", "content": [{"type": "text", "text": BEFORE}]})
    if not messages or messages[-1]["role"] != role:
        messages.append({"role": role, "content": []})
    messages[-1]["content"].append(block)


def _told(lines: Sequence[Line]) -> Iterator[Said | ToolCall]:
    """Yield what is told, the calls under ids and names that all three take: each id once."""
    ids: set[str] = set()
    for said in told(lines):
        if isinstance(said, ToolCall):
            own = _own_id(said.id, ids)
            ids.add(own)
            yield said.model_copy(
                update={"id": own, "name": re.sub(r"[^A-Za-z0-9_-]", "_", said.name)[:NAME_MAX] or "tool"}
            )
        else:
            yield said


def _own_id(given: str, taken: set[str]) -> str:
    if ID.fullmatch(given) and given not in taken:
        return given
    made = (sha256(f"{given} {number}".encode()).hexdigest()[:ID_LENGTH] for number in count())
    return next(one for one in made if one not in taken)


def _output(call: ToolCall) -> str:
    output: Any = call.output
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
