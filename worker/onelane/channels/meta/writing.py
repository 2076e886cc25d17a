"""Batches as Meta would write them, to try a bot without an account."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from onelane.channels.meta import identities, people
from onelane.channels.meta.contents import FILES
from onelane.channels.meta.envelope import LISTS, OBJECT
from onelane.channels.meta.messages import GROUP
from onelane.channels.meta.preferences import EVENTS, MARKETING
from onelane.deliveries import Delivery, IdentityChange, Item, Kind, Status
from onelane.errors import BadRequest
from onelane.model import AttachmentKind, JsonObject

NUMBER_ID = "100000000000001"
"""Our number, where none is configured."""
DISPLAY_NUMBER = "15550100"
ACCOUNT_ID = "200000000000001"
FIELDS: Final = {name: field for field, lists in LISTS.items() for name in lists}
"""The field of a change, by the list that it holds."""
KINDS: Final[Mapping[AttachmentKind, str]] = {kind: name for name, kind in FILES.items()} | {
    AttachmentKind.VOICE: "audio"
}
WISHES: Final = {event: wish for wish, event in EVENTS.items()}


@dataclass(frozen=True, slots=True)
class Written:
    """One object of a batch."""

    list_name: str
    value: JsonObject
    contact: JsonObject | None = None


def names_of(name: str) -> tuple[str, str]:
    """Make a phone number and a scoped id for a name."""
    digits = str(int.from_bytes(sha256(name.encode("utf-8", "surrogatepass")).digest()[:16])).zfill(39)
    return f"999{digits[:12]}", f"US.{digits[12:32]}"


def batch(phone_number_id: str, runs: Sequence[Sequence[Written]]) -> bytes:
    """Write a batch with a change for each run of objects of one list."""
    metadata = {"display_phone_number": DISPLAY_NUMBER, "phone_number_id": phone_number_id}
    changes = [_change(metadata, run) for run in runs]
    return json.dumps({"object": OBJECT, "entry": [{"id": ACCOUNT_ID, "changes": changes}]}).encode()


def written(item: Item) -> Written:
    """Write one item as Meta does; BadRequest for what it never sends."""
    if isinstance(item, Status):
        return Written("statuses", _status(item))
    if isinstance(item, IdentityChange):
        return Written("messages", _system(item))
    if isinstance(item, Delivery):
        return _delivery(item)
    raise BadRequest("", f"this provider sends no {type(item).__name__}")


def _change(metadata: JsonObject, run: Sequence[Written]) -> JsonObject:
    name = run[0].list_name
    contacts = [one.contact for one in run if one.contact]
    value = {"messaging_product": "whatsapp", "metadata": metadata, **({"contacts": contacts} if contacts else {})}
    return {"field": FIELDS[name], "value": {**value, name: [one.value for one in run]}}


def _delivery(item: Delivery) -> Written:
    names = _sorted_names(item.senders)
    if item.event in WISHES:
        preference = {"category": MARKETING, "value": WISHES[item.event], "timestamp": int(_seconds(item.sent_at))}
        return Written("user_preferences", {**_named(people.CONTACT, names), **preference})
    is_echo = item.kind is Kind.ECHO
    message = {
        **_named(people.RECEIVER if is_echo else people.WRITER, names),
        **({"from": DISPLAY_NUMBER} if is_echo else {}),
        "id": item.external_id,
        "timestamp": _seconds(item.sent_at),
        **({"group_id": item.conversation.removeprefix(GROUP)} if item.conversation else {}),
        **_content(item),
    }
    name = item.author.name if item.author else None
    contact = {"profile": {"name": name}, **_named(people.CONTACT, names)} if name else None
    return Written("message_echoes" if is_echo else "messages", message, contact)


def _content(item: Delivery) -> JsonObject:
    if item.event is not None:
        return _event(item)
    context = _known({"id": item.quoted, "forwarded": item.parts.get("forwarded")})
    return {**_typed(item), **({"context": context} if context else {})}


def _typed(item: Delivery) -> JsonObject:
    if item.button is not None:
        reply = {"id": item.button, "title": item.text}
        return {"type": "interactive", "interactive": {"type": "button_reply", "button_reply": reply}}
    if len(item.attachments) > 1:
        raise BadRequest("attachments", "Meta sends one in a message")
    if item.attachments:
        return _file(item)
    for kind in ("location", "order"):
        if kind in item.parts:
            return {"type": kind, kind: item.parts[kind]}
    return {"type": "text", "text": {"body": item.text}}


def _file(item: Delivery) -> JsonObject:
    [file] = item.attachments
    if file.id is None:
        raise BadRequest("attachments.id", "is missing: Meta names files by ids")
    named = _known({"mime_type": file.content_type, "filename": file.name, "caption": item.text or None})
    voice = {"voice": True} if file.kind is AttachmentKind.VOICE else {}
    return {"type": KINDS[file.kind], KINDS[file.kind]: {"id": file.id, **named, **voice}}


def _event(item: Delivery) -> JsonObject:
    write = EVENT_TYPES.get(item.event or "")
    if write is None:
        raise BadRequest("event", f"must be one of {', '.join(sorted({*EVENT_TYPES, *WISHES}))}")
    return write(item)


def _reaction(item: Delivery) -> JsonObject:
    reaction = item.parts.get("reaction", {})
    return {"type": "reaction", "reaction": {"message_id": item.quoted, **_known({"emoji": reaction.get("emoji")})}}


def _edited(item: Delivery) -> JsonObject:
    message = {"type": "text", "text": {"body": item.text}}
    return {"type": "edit", "edit": {"original_message_id": item.quoted, "message": message}}


EVENT_TYPES: Final[Mapping[str, Callable[[Delivery], JsonObject]]] = {
    "reaction": _reaction,
    "edited": _edited,
    "deleted": lambda item: {"type": "revoke", "revoke": {"original_message_id": item.quoted}},
    "opened": lambda _item: {"type": "request_welcome"},
    "unsupported": lambda _item: {"type": "unsupported", "errors": [{"code": 131051}]},
}


def _system(item: IdentityChange) -> JsonObject:
    """Write a change of number or id, or of the number's owner."""
    before, after = _sorted_names(item.senders), _sorted_names(item.adds)
    if item.has_new_owner:
        notice: JsonObject = {"type": identities.OWNER_CHANGED}
    elif not item.adds or set(item.drops) - {before.phone}:
        raise BadRequest("adds", "must have a new number or id, and nothing but the old number is dropped")
    else:
        what = "user_changed_number" if after.phone or item.drops else identities.ID_CHANGED
        notice = {"type": what, **_named(people.CONTACT, after)}
    message = {"id": item.external_id, "timestamp": _seconds(item.sent_at), "type": "system", "system": notice}
    return {**_named(people.WRITER, before), **message}


def _status(item: Status) -> JsonObject:
    status: JsonObject = {"id": item.provider_id, "status": item.state, "timestamp": _seconds(item.at)}
    named = _known(
        {
            "biz_opaque_callback_data": str(item.key) if item.key else None,
            "recipient_participant_id": item.participant,
        }
    )
    code = item.failure_code
    errors = {"errors": [{"code": int(code) if code.isdecimal() else code}]} if code else {}
    return {**status, **named, **errors}


def _sorted_names(senders: Sequence[str]) -> people.Names:
    """Tell a person's names apart by their forms."""
    parent = next((name for name in senders if people.PARENT.fullmatch(name)), None)
    scoped = next((name for name in senders if people.SCOPED.fullmatch(name)), None)
    phone = next((name for name in senders if name not in {parent, scoped}), None)
    return people.Names(phone, scoped, parent)


def _named(keys: people.Keys, names: people.Names) -> JsonObject:
    return _known(dict(zip(keys, (names.phone, names.scoped, names.parent), strict=True)))


def _known(values: dict[str, Any]) -> JsonObject:
    return {name: value for name, value in values.items() if value is not None}


def _seconds(instant: datetime | None) -> str:
    return str(int((instant or datetime.now(UTC)).timestamp()))
