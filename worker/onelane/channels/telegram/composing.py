"""Updates as Telegram would send them: for trying a bot without an account."""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

from onelane.channels.telegram.chats import NUMBER_MAX
from onelane.deliveries import Delivery, IdentityChange, Item, Kind
from onelane.errors import BadRequest
from onelane.model import Attachment, AttachmentKind, JsonObject

CONVERSATION: Final = re.compile(r"(?:business:(.+):)?(-?\d+)(?::topic:(\d+))?(?::direct:(\d+))?")
MESSAGE_NAME: Final = re.compile(r".*:(\d+)")
OWNER: Final = 1
FIELD: Final = {
    AttachmentKind.VIDEO: "video",
    AttachmentKind.AUDIO: "audio",
    AttachmentKind.VOICE: "voice",
    AttachmentKind.STICKER: "sticker",
    AttachmentKind.FILE: "document",
}


def number_of(name: str) -> int:
    """Read a number of Telegram's, or make one that is always the same for this name."""
    if re.fullmatch(r"-?\d{1,16}", name) and abs(int(name)) <= NUMBER_MAX:
        return int(name)
    return int.from_bytes(sha256(name.encode("utf-8", "replace")).digest()[:6]) + 1


def composed(item: Item) -> JsonObject:
    """Make the update; raise BadRequest for what Telegram never sends."""
    if isinstance(item, IdentityChange):
        return _update(item.external_id, "message", _migration(item))
    if not isinstance(item, Delivery):
        raise BadRequest("", f"Telegram sends no {type(item).__name__}")
    if item.kind == Kind.EVENT:
        compose = EVENTS.get(item.event or "")
        if compose is None:
            raise BadRequest("event", "must be one of " + ", ".join(EVENTS))
        return compose(item)
    if item.button is not None:
        return _pressed(item)
    business = "business_" * ("business_connection_id" in _place(item))
    return _update(item.external_id, f"{business}message", _message(item))


def _update(external_id: str, kind: str, content: JsonObject) -> JsonObject:
    return {"update_id": abs(number_of(external_id)), kind: content}


def _place(item: Delivery) -> JsonObject:
    """Return the fields that say where it was written."""
    if item.conversation is None:
        return {"chat": {"id": number_of(item.senders[0]), "type": "private"}}
    if not (found := CONVERSATION.fullmatch(item.conversation)):
        return {"chat": {"id": -abs(number_of(item.conversation)), "type": "supergroup"}}
    business, chat, topic, direct = found.groups()
    place: JsonObject = {"chat": {"id": int(chat), "type": "private" if int(chat) > 0 else "supergroup"}}
    if business:
        place["business_connection_id"] = business
    if topic:
        place |= {"message_thread_id": int(topic), "is_topic_message": True}
    if direct:
        place["direct_messages_topic"] = {"topic_id": int(direct)}
    return place


def _person(item: Delivery) -> JsonObject:
    author = item.author
    return {
        "id": number_of(author.id if author else item.senders[0]),
        "is_bot": False,
        "first_name": (author and author.name) or item.senders[0],
    }


def _message_id(name: str) -> int:
    found = MESSAGE_NAME.fullmatch(name)
    return abs(number_of(found[1] if found else name))


def _message(item: Delivery) -> JsonObject:
    message = {**_place(item), "message_id": _message_id(item.external_id), "date": _seconds(item)}
    message["from"] = {**_person(item), "id": OWNER} if item.kind == Kind.ECHO else _person(item)
    if item.quoted is not None:
        message["reply_to_message"] = {"message_id": _message_id(item.quoted), "date": 1, "chat": message["chat"]}
    return message | _content(item)


def _content(item: Delivery) -> JsonObject:
    if len(item.attachments) > 1:
        raise BadRequest("attachments", "must be one a message: an album is several messages with parts.album")
    content: JsonObject = {"media_group_id": item.parts["album"]} if "album" in item.parts else {}
    for attachment in item.attachments:
        content |= _file(attachment)
    if isinstance(location := item.parts.get("location"), dict):
        content["location"] = {name: location.get(name) for name in ("latitude", "longitude")}
        if "name" in location:
            content["venue"] = {"title": location["name"], "address": location.get("address", "")}
    for contact in item.parts.get("contacts", [])[:1]:
        content["contact"] = {"first_name": contact["name"], "phone_number": contact["phones"][0]}
    if item.text or not content:
        content |= _text(item.text, "caption" if item.attachments else "text")
    return content


def _text(text: str, field: str) -> JsonObject:
    command = re.match(r"/[A-Za-z0-9_@]+", text)
    entities = [{"type": "bot_command", "offset": 0, "length": command.end()}] if command else []
    return {field: text, "caption_entities" if field == "caption" else "entities": entities}


def _file(attachment: Attachment) -> JsonObject:
    given = {
        "file_id": attachment.id or attachment.url or "",
        "mime_type": attachment.content_type,
        "file_name": attachment.name,
        "file_size": attachment.size,
    }
    file = {name: value for name, value in given.items() if value is not None}
    if attachment.kind == AttachmentKind.IMAGE:
        return {"photo": [{**file, "width": 1, "height": 1}]}
    return {FIELD[attachment.kind]: file}


def _pressed(item: Delivery) -> JsonObject:
    quoted = _message_id(item.quoted or item.external_id)
    key = {"text": item.text, "callback_data": item.button}
    message = {**_place(item), "message_id": quoted, "date": 1, "reply_markup": {"inline_keyboard": [[key]]}}
    callback = {"id": str(abs(number_of(item.external_id))), "from": _person(item), "data": item.button}
    return _update(item.external_id, "callback_query", {**callback, "message": message})


def _edited(item: Delivery) -> JsonObject:
    business = "business_" * ("business_connection_id" in _place(item))
    message = _message(item.model_copy(update={"quoted": None}))
    message |= {"message_id": _message_id(item.quoted or ""), "edit_date": message["date"]}
    return _update(item.external_id, f"edited_{business}message", message)


def _deleted(item: Delivery) -> JsonObject:
    place = _place(item)
    if "business_connection_id" not in place:
        raise BadRequest("conversation", "must be a business chat: of others Telegram reports no deletion")
    content = {**place, "message_ids": [_message_id(item.quoted or "")]}
    return _update(item.external_id, "deleted_business_messages", content)


def _reacted(item: Delivery) -> JsonObject:
    emoji = item.parts.get("reaction", {}).get("emoji")
    reaction = {
        **_place(item),
        "message_id": _message_id(item.quoted or ""),
        "user": _person(item),
        "date": _seconds(item),
        "old_reaction": [],
        "new_reaction": [{"type": "emoji", "emoji": emoji}] if emoji else [],
    }
    return _update(item.external_id, "message_reaction", reaction)


def _admitted(item: Delivery) -> JsonObject:
    inside, outside = {"status": "member"}, {"status": "kicked"}
    is_inside = item.event in {"unblocked", "joined"}
    change = {
        **_place(item),
        "from": _person(item),
        "date": _seconds(item),
        "old_chat_member": outside if is_inside else inside,
        "new_chat_member": inside if is_inside else outside,
    }
    return _update(item.external_id, "my_chat_member", change)


def _migration(item: IdentityChange) -> JsonObject:
    [old], [new] = item.senders[:1], item.adds[:1] or ("",)
    if number_of(old) > 0:
        raise BadRequest("senders", "must be a group: of people Telegram never changes the number")
    chat = {"id": -abs(number_of(old)), "type": "group"}
    return {"message_id": 1, "date": _seconds(item), "chat": chat, "migrate_to_chat_id": -abs(number_of(new))}


def _seconds(item: Delivery | IdentityChange) -> int:
    return int(item.sent_at.timestamp()) if item.sent_at else 1


EVENTS: Final[Mapping[str, Callable[[Delivery], JsonObject]]] = {
    "edited": _edited,
    "deleted": _deleted,
    "reaction": _reacted,
    "blocked": _admitted,
    "unblocked": _admitted,
    "joined": _admitted,
    "left": _admitted,
}
