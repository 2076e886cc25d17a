"""Messages of users, and echoes of what a colleague wrote in WhatsApp's own app."""

from typing import Any

from onelane.channels import fields
from onelane.channels.bodies import repaired
from onelane.channels.meta import contents, identities, people
from onelane.channels.meta.change import Change, instant, object_in
from onelane.channels.meta.contents import Content
from onelane.channels.meta.happenings import content_of
from onelane.deliveries import Delivery, IdentityChange, Kind
from onelane.model import Author, JsonObject

REFERRAL = (
    *("source_url", "source_type", "source_id", "headline", "body", "ctwa_clid"),
    *("media_type", "image_url", "video_url", "thumbnail_url"),
)
REFERRAL_MAX = 2_048
GROUP = "group:"
"""Stands before a group's id, so that no group has a person's name."""


class _Head(fields.Incoming):
    id: fields.ExternalId
    group_id: fields.Sender | None = None


def read(value: Any, change: Change) -> Delivery | IdentityChange:
    """Read one of a change's `messages`."""
    message = object_in(value, "messages")
    if message.get("type") == "system":
        return identities.system(message, change)
    return _delivery(message, change, people.WRITER)


def echo(value: Any, change: Change) -> Delivery:
    """Read one of a change's `message_echoes`: said by our side, to the person that it names."""
    return _delivery(object_in(value, "message_echoes"), change, people.RECEIVER)


def _delivery(original: JsonObject, change: Change, keys: people.Keys) -> Delivery:
    head, is_echo = fields.checked(_Head, original), keys is people.RECEIVER
    person = change.person(original, keys)
    message, repairs = repaired(original)
    content = {"parts": {}, "repairs": (), **content_of(message)}
    return Delivery(
        external_id=head.id,
        senders=tuple(dict.fromkeys([*person.senders, *contents.own_number(original)])),
        kind=_kind(content, is_echo=is_echo),
        raw=fields.bounded(message),
        sent_at=instant(message.get("timestamp")),
        author=None if is_echo else _author(head, person),
        **_place(head, person, change),
        **{
            **content,
            **_quoted(message, content),
            "parts": {**content["parts"], **_extras(message)},
            "repairs": tuple(sorted({*repairs, *content["repairs"]})),
        },
    )


def _kind(content: Content, *, is_echo: bool) -> Kind:
    if is_echo:
        return Kind.ECHO
    return Kind.EVENT if "event" in content else Kind.MESSAGE


def _author(head: _Head, person: people.Person) -> Author | None:
    """Return who wrote, if the name is known; in a group in any case."""
    return person.author or (Author(id=person.senders[0]) if head.group_id else None)


def _place(head: _Head, person: people.Person, change: Change) -> Content:
    """Return where it was written, and the way back there."""
    if head.group_id is None:
        return {"route": person.route(change.phone_number_id) or None}
    route = people.way_back(change.phone_number_id, group_id=head.group_id)
    return {"conversation": f"{GROUP}{head.group_id}", "route": route}


def _quoted(message: JsonObject, content: Content) -> Content:
    """Return what it answers, unless its content says which message it is about."""
    quoted = _object(message, "context").get("id")
    if "quoted" in content or not (isinstance(quoted, str) and fields.is_visible(quoted)):
        return {}
    return {"quoted": quoted}


def _extras(message: JsonObject) -> JsonObject:
    """Return what any message may have beside its content; what is odd about it stays in `raw` alone."""
    context = _object(message, "context")
    often = context.get("frequently_forwarded") is True
    product = _texts(_object(context, "referred_product"), ("catalog_id", "product_retailer_id"))
    referral = _texts(_object(message, "referral"), REFERRAL)
    found = {
        "forwarded": often or context.get("forwarded") is True,
        "forwarded_often": often,
        "product": product,
        "referral": referral,
    }
    return {name: value for name, value in found.items() if value}


def _object(values: JsonObject, key: str) -> JsonObject:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _texts(values: JsonObject, keys: tuple[str, ...]) -> JsonObject:
    return {key: value for key in keys if isinstance(value := values.get(key), str) and 0 < len(value) <= REFERRAL_MAX}
