"""What the fake model says: a pure function of what it was told."""

import json
from collections.abc import Sequence
from typing import Final

from onelane.model import JsonObject
from onelane.testing.model_protocols import check_chat

OUTPUT_MAX: Final = 500


def answer(request: JsonObject) -> JsonObject:
    """Return the assistant's message; raise ProtocolError for a history that the real service would refuse.

    A tool whose name the user's last message holds is called once, with the JSON object behind its name, if any.
    """
    messages: Sequence[JsonObject] = request.get("messages") or []
    check_chat(messages)
    new = _since_last_answer(messages)
    outputs = [message["content"] for message in new if message["role"] == "tool"]
    said = [message["content"] for message in new if message["role"] == "user"]
    if not outputs and said and (call := _called(said[-1], request.get("tools") or [])):
        name, arguments = call
        function = {"name": name, "arguments": arguments}
        calls = [{"id": f"call_{len(messages)}", "type": "function", "function": function}]
        return {"role": "assistant", "content": None, "tool_calls": calls}
    told = [*said, *(f"the tool gave {output[:OUTPUT_MAX]}" for output in outputs)]
    return {"role": "assistant", "content": f"You said: {' / '.join(told) or 'nothing'}"}


def _since_last_answer(messages: Sequence[JsonObject]) -> Sequence[JsonObject]:
    """Return what has come since the assistant last said something."""
    answered = [n for n, message in enumerate(messages) if message["role"] == "assistant" and message.get("content")]
    return messages[answered[-1] + 1 :] if answered else messages


def _called(text: str, tools: Sequence[JsonObject]) -> tuple[str, str] | None:
    """Return the name of the tool that a text names, and its arguments as JSON."""
    for tool in tools:
        name = tool["function"]["name"]
        before, found, behind = text.partition(name)
        if found and (not before or before[-1].isspace()):
            return name, _object_in(behind)
    return None


def _object_in(text: str) -> str:
    try:
        arguments = json.loads(text)
    except ValueError:
        return "{}"
    return text.strip() if isinstance(arguments, dict) else "{}"
