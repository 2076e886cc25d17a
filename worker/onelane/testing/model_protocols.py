"""What the three model protocols refuse, as strictly as their services do: for tests of what is sent to a model."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from onelane.model import JsonObject

ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ProtocolError(Exception):
    """The service would answer 400."""


def check_chat(messages: Sequence[JsonObject]) -> None:
    """Refuse what Chat Completions does: above all calls whose outputs do not follow at once, each once."""
    _not_empty(messages)
    open_calls: set[str] = set()
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role == "tool":
            _close(open_calls, message.get("tool_call_id"))
            _text(content)
            continue
        if open_calls:
            raise ProtocolError("calls must be followed by the outputs of all of them")
        if role not in {"system", "user", "assistant"}:
            raise ProtocolError(f"no such role: {role}")
        calls = message.get("tool_calls", [])
        if role == "assistant" and calls:
            open_calls = _ids([_chat_call(call) for call in calls])
        else:
            _text(content)
    if open_calls:
        raise ProtocolError("the last calls have no outputs")


def check_responses(items: Sequence[JsonObject]) -> None:
    """Refuse what Responses does: a call without output, an output without call, either twice."""
    _not_empty(items)
    calls: list[str] = []
    outputs: list[str] = []
    for item in items:
        match item.get("type", "message"):
            case "message":
                if item.get("role") not in {"system", "developer", "user", "assistant"}:
                    raise ProtocolError("no such role")
                _text(item.get("content"))
            case "function_call":
                _name(item.get("name"))
                _arguments(item.get("arguments"))
                calls.append(_id(item.get("call_id")))
            case "function_call_output":
                _text(item.get("output"))
                outputs.append(_id(item.get("call_id")))
                if outputs[-1] not in calls:
                    raise ProtocolError("an output stands before its call")
            case other:
                raise ProtocolError(f"no such item: {other}")
    if _ids(calls) != _ids(outputs):
        raise ProtocolError("a call has no output")


def check_anthropic(messages: Sequence[JsonObject]) -> None:
    """Refuse what Messages does: roles that do not alternate, results that are not in the very next message, first."""
    _not_empty(messages)
    open_calls: set[str] = set()
    seen: list[str] = []
    for number, message in enumerate(messages):
        if message.get("role") != ("user", "assistant")[number % 2]:
            raise ProtocolError("the user begins, and roles alternate")
        blocks = message.get("content")
        if not isinstance(blocks, list) or not blocks:
            raise ProtocolError("a message has blocks")
        if _ids(_results(message["role"], blocks)) != open_calls:
            raise ProtocolError("the next message has the results of all calls, and no others")
        calls = _uses(message["role"], blocks)
        seen += calls
        open_calls = _ids(calls)
    _ids(seen)
    if open_calls:
        raise ProtocolError("the last calls have no results")


def _results(role: str, blocks: Sequence[JsonObject]) -> list[str]:
    found = [block for block in blocks if block.get("type") == "tool_result"]
    if any(block.get("type") != "tool_result" for block in blocks[: len(found)]):
        raise ProtocolError("results stand before everything else of their message")
    if found and role != "user":
        raise ProtocolError("results are the user's")
    return [_id(block.get("tool_use_id")) for block in found]


def _uses(role: str, blocks: Sequence[JsonObject]) -> list[str]:
    for block in blocks:
        if block.get("type") not in {"text", "tool_use", "tool_result"}:
            raise ProtocolError("no such block")
        if block["type"] == "text" and not str(block.get("text", "")).strip():
            raise ProtocolError("a text says something")
        if block["type"] == "tool_use" and role != "assistant":
            raise ProtocolError("calls are the assistant's")
    return [_use(block) for block in blocks if block["type"] == "tool_use"]


CHECKS: Final[Mapping[str, Callable[[Sequence[JsonObject]], None]]] = {
    "chat": check_chat,
    "responses": check_responses,
    "anthropic": check_anthropic,
}


def _chat_call(call: Any) -> str:
    if not isinstance(call, dict) or call.get("type") != "function":
        raise ProtocolError("a call is of a function")
    _name(call["function"].get("name"))
    _arguments(call["function"].get("arguments"))
    return _id(call.get("id"))


def _use(block: JsonObject) -> str:
    _name(block.get("name"))
    if not isinstance(block.get("input"), dict):
        raise ProtocolError("an input is an object")
    return _id(block.get("id"))


def _close(open_calls: set[str], call: Any) -> None:
    if call not in open_calls:
        raise ProtocolError("an output without a call right before it")
    open_calls.discard(call)


def _ids(ids: Sequence[str]) -> set[str]:
    if len(set(ids)) < len(ids):
        raise ProtocolError("an id is given twice")
    return set(ids)


def _id(value: Any) -> str:
    if not (isinstance(value, str) and ID.fullmatch(value)):
        raise ProtocolError("not an id")
    return value


def _name(value: Any) -> None:
    if not (isinstance(value, str) and NAME.fullmatch(value)):
        raise ProtocolError("not a name")


def _arguments(value: Any) -> None:
    try:
        is_object = isinstance(json.loads(value), dict)
    except (TypeError, ValueError):
        is_object = False
    if not is_object:
        raise ProtocolError("arguments are an object, as JSON")


def _text(value: Any) -> None:
    if not isinstance(value, str):
        raise ProtocolError("content is a text")


def _not_empty(messages: Sequence[JsonObject]) -> None:
    if not messages:
        raise ProtocolError("nothing was said")
