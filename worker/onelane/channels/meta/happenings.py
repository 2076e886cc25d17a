"""What is no message, by its `type`: reactions, edits, deletions, what WhatsApp does not hand on."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from onelane.channels import fields
from onelane.channels.meta import contents
from onelane.channels.meta.contents import Content
from onelane.model import JsonObject


class _Reaction(fields.Incoming):
    message_id: fields.ExternalId
    emoji: Annotated[fields.Text, Field(max_length=256)] | None = None


class _Reacted(fields.Incoming):
    reaction: _Reaction


def reaction(message: JsonObject) -> Content:
    """Read a reaction; without an emoji it is taken back."""
    found = fields.checked(_Reacted, message).reaction
    return {"event": "reaction", "quoted": found.message_id, "parts": {"reaction": {"emoji": found.emoji or None}}}


class _Original(fields.Incoming):
    original_message_id: fields.ExternalId


class _Edit(_Original):
    message: dict[str, Any]


class _Edited(fields.Incoming):
    edit: _Edit


def edit(message: JsonObject) -> Content:
    """Read the new text, and the new file if there is one."""
    found = fields.checked(_Edited, message).edit
    read = contents.MESSAGES.get(str(found.message.get("type")))
    content = (read and read(found.message)) or {}
    return {**content, "button": None, "closes": False, "event": "edited", "quoted": found.original_message_id}


class _Revoked(fields.Incoming):
    revoke: _Original


def revoke(message: JsonObject) -> Content:
    """Read which message its writer took back."""
    return {"event": "deleted", "quoted": fields.checked(_Revoked, message).revoke.original_message_id}


def unsupported(message: JsonObject) -> Content:
    """Read what WhatsApp says of a message that it does not hand on."""
    inner, errors = message.get("unsupported"), message.get("errors")
    what = {
        "type": inner.get("type") if isinstance(inner, dict) else None,
        "code": errors[0].get("code") if isinstance(errors, list) and errors and isinstance(errors[0], dict) else None,
    }
    known = {name: value for name, value in what.items() if isinstance(value, str | int)}
    return {"event": "unsupported", "parts": {"unsupported": known} if known else {}}


def opened(_message: JsonObject) -> Content:
    """Read that somebody opened the conversation for the first time."""
    return {"event": "opened"}


def call_permission(message: JsonObject) -> Content:
    """Read whether somebody allows calls."""
    reply = message["interactive"].get("call_permission_reply")
    response = reply.get("response") if isinstance(reply, dict) else None
    allowed = {"permission": response} if isinstance(response, str) else {}
    return {"event": "call", "parts": {"call": allowed} if allowed else {}}


EVENTS: Final[Mapping[str, Callable[[JsonObject], Content]]] = {
    "reaction": reaction,
    "edit": edit,
    "revoke": revoke,
    "unsupported": unsupported,
    "request_welcome": opened,
}
"""How each type of event is read."""


def content_of(message: JsonObject) -> Content:
    """Read what a message holds; of a type that is not known, that it is `unknown`."""
    kind = str(message.get("type"))
    if kind == "interactive" and message.get("interactive") is None:
        # Meta says so with an error 131000 beside the messages: what was pressed is lost.
        return unsupported(message)
    if kind in EVENTS:
        return EVENTS[kind](message)
    read = contents.MESSAGES.get(kind)
    content = read(message) if read else None
    if content is not None:
        return content
    if kind == "interactive" and message["interactive"].get("type") == "call_permission_reply":
        return call_permission(message)
    return {"event": "unknown"}
