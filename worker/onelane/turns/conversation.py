"""What a suspect's child may ask of its parent while it runs a turn: the parent's side of `isolated.py`."""

from base64 import b64encode

from onelane.bot import Memory
from onelane.errors import FileError, HandlerFailed, HandlerWaits
from onelane.model import Attachment, JsonObject, TurnRead
from onelane.wire import Wire


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
            case {"ask": "history", "limit": int(limit)}:
                with memory.reading():
                    lines = memory.history(read.session.id, limit)
                wire.send({"answer": [line.model_dump(mode="json") for line in lines]})
            case {"ask": "tool_output", "name": str(name)}:
                with memory.reading():
                    output = memory.tool_output(read.session.id, name)
                wire.send({"answer": output})
            case {"ask": "fetch", "attachment": dict(attachment)}:
                wire.send(_fetched(memory, Attachment.model_validate(attachment)))
            case _:
                raise HandlerFailed("the handler's process sent something that is not of our protocol")


def _fetched(memory: Memory, attachment: Attachment) -> JsonObject:
    """Fetch a file for the child, which has no providers."""
    try:
        file = memory.fetching(attachment).result()
    except FileError as error:
        return {"refused": type(error).__name__, "why": str(error)}
    return {"answer": {"content": b64encode(file.content).decode(), "content_type": file.content_type}}
