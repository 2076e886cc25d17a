"""What a suspect's child may ask of its parent while it runs a turn: the parent's side of `isolated.py`."""

from base64 import b64encode
from typing import Any, Final

from onelane.bot.memory import Memory, kept
from onelane.errors import FileError, HandlerFailed, HandlerWaits
from onelane.model import Attachment, JsonObject, TurnRead
from onelane.wire import Wire

FOREIGN: Final = "the handler's process sent something that is not of our protocol"


def converse(wire: Wire, read: TurnRead, memory: Memory) -> JsonObject:
    """Send the child its turn, then answer what it asks, until it has sent how the turn ended."""
    wire.send(read.model_dump(mode="json"))
    while True:
        match wire.receive(None):
            case {"effects": dict(effects)}:
                return effects
            case {"failed": str(failure)}:
                raise HandlerFailed(failure)
            case {"waits": str(failure), "seconds": float() | int() | None as seconds, "reason": str(reason)}:
                raise HandlerWaits(failure, seconds, reason)
            case {"ask": "fetch", "attachment": dict(attachment)}:
                wire.send(_fetched(memory, Attachment.model_validate(attachment)))
            case {"ask": str()} as question:
                with memory.reading():
                    answer = _read(read, memory, question)
                wire.send({"answer": answer})
            case _:
                raise HandlerFailed(FOREIGN)


def _read(read: TurnRead, memory: Memory, question: JsonObject) -> Any:
    match question:
        case {"ask": "history", "limit": int(limit)}:
            return [line.model_dump(mode="json") for line in memory.history(read.session.id, limit)]
        case {"ask": "tool_output", "name": str(name)}:
            return memory.tool_output(read.session.id, name)
        case {"ask": "newer"}:
            return [message.model_dump(mode="json") for message in memory.newer()]
        case {"ask": "step", "key": str(key)}:
            return memory.known_step(key)
        case {"ask": "keep", "key": str(key), "value": value}:
            return kept(memory, key, value)
        case {"ask": "shield"}:
            return memory.shield()
    raise HandlerFailed(FOREIGN)


def _fetched(memory: Memory, attachment: Attachment) -> JsonObject:
    """Fetch a file for the child, which has no providers."""
    try:
        file = memory.fetching(attachment).result()
    except FileError as error:
        return {"refused": type(error).__name__, "why": str(error)}
    return {"answer": {"content": b64encode(file.content).decode(), "content_type": file.content_type}}
