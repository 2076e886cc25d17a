"""What a message holds, by its `type`: text, files, places, buttons."""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from onelane.channels import fields
from onelane.channels.bodies import json_object, repaired
from onelane.errors import BadRequest
from onelane.model import Attachment, AttachmentKind, JsonObject

Content = dict[str, Any]
"""Fields of a Delivery, by their names."""
NAME_MAX = 256
CONTACTS_MAX = 256
ITEMS_MAX = 256
NO_DIGIT = re.compile("[^0-9]")

Name = Annotated[str, Field(max_length=NAME_MAX)]
Phone = Annotated[fields.Storable, Field(max_length=NAME_MAX)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Body(fields.Incoming):
    body: fields.Text


class _Text(fields.Incoming):
    text: _Body


def text(message: JsonObject) -> Content:
    """Read what somebody typed."""
    return {"text": fields.checked(_Text, message).text.body}


class _Media(fields.Incoming):
    id: fields.ExternalId
    mime_type: fields.ContentType | None = None
    filename: Name | None = None
    caption: fields.Text | None = None
    voice: bool = False


FILES: Final[Mapping[str, AttachmentKind]] = {
    "image": AttachmentKind.IMAGE,
    "video": AttachmentKind.VIDEO,
    "sticker": AttachmentKind.STICKER,
    "audio": AttachmentKind.AUDIO,
    "document": AttachmentKind.FILE,
}


class _File(fields.Incoming):
    file: _Media


def file(message: JsonObject) -> Content:
    """Read one file and its caption. Its address lives minutes, its id days: the id is kept."""
    kind = message["type"]
    media = fields.checked(_File, {"file": message.get(kind)}).file
    attachment = Attachment(
        id=media.id,
        kind=AttachmentKind.VOICE if media.voice else FILES[kind],
        content_type=media.mime_type,
        name=media.filename,
    )
    return {"text": media.caption or "", "attachments": (attachment,)}


class _Place(fields.Incoming):
    latitude: Number
    longitude: Number
    name: Name | None = None
    address: fields.Text | None = None
    url: fields.Text | None = None


class _Location(fields.Incoming):
    location: _Place


def location(message: JsonObject) -> Content:
    """Read a place."""
    return {"parts": _dumped(fields.checked(_Location, message))}


class _FullName(fields.Incoming):
    formatted_name: fields.Text = ""


class _Phone(fields.Incoming):
    phone: Phone | None = None
    wa_id: Phone | None = None


class _Email(fields.Incoming):
    email: Name | None = None


class _Card(fields.Incoming):
    name: _FullName = _FullName()
    phones: Annotated[tuple[_Phone, ...], Field(max_length=CONTACTS_MAX)] = ()
    emails: Annotated[tuple[_Email, ...], Field(max_length=CONTACTS_MAX)] = ()


class _Cards(fields.Incoming):
    contacts: Annotated[tuple[_Card, ...], Field(max_length=CONTACTS_MAX)]


def contacts(message: JsonObject) -> Content:
    """Read the cards of people, with the numbers as they were written."""
    cards = fields.checked(_Cards, message).contacts
    return {"parts": {"contacts": [_person(card) for card in cards]}}


def own_number(message: JsonObject) -> tuple[str, ...]:
    """Return the number that somebody gave as their own, since they were asked for it; no other card counts."""
    if message.get("type") != "contacts" or message.get("origin") != "contact_request":
        return ()
    phones = [phone for card in fields.checked(_Cards, message).contacts for phone in card.phones]
    numbers = {(phone.wa_id or "").strip() or NO_DIGIT.sub("", phone.phone or "") for phone in phones} - {""}
    return tuple(numbers) if len(numbers) == 1 else ()


def _person(card: _Card) -> JsonObject:
    phones = [phone.phone or phone.wa_id for phone in card.phones if phone.phone or phone.wa_id]
    emails = [one.email for one in card.emails if one.email]
    return {"name": card.name.formatted_name, "phones": phones, **({"emails": emails} if emails else {})}


class _Product(fields.Incoming):
    product_retailer_id: Name
    quantity: Annotated[int, Field(ge=0)]
    item_price: Number | None = None
    currency: Name | None = None


class _Basket(fields.Incoming):
    catalog_id: Name | None = None
    text: fields.Text | None = None
    product_items: Annotated[tuple[_Product, ...], Field(max_length=ITEMS_MAX)]


class _Order(fields.Incoming):
    order: _Basket


def order(message: JsonObject) -> Content:
    """Read a basket."""
    basket = fields.checked(_Order, message).order
    items = [_dumped(item) for item in basket.product_items]
    named = {"catalog_id": basket.catalog_id} if basket.catalog_id else {}
    return {"text": basket.text or "", "parts": {"order": {**named, "product_items": items}}}


class _Quick(fields.Incoming):
    payload: fields.Button | None = None
    text: fields.Text = ""


class _Button(fields.Incoming):
    button: _Quick


def button(message: JsonObject) -> Content:
    """Read the pressed button of a template."""
    pressed = fields.checked(_Button, message).button
    return {
        "button": pressed.payload or pressed.text[: fields.BUTTON_MAX] or None,
        "text": pressed.text,
        "closes": True,
    }


class _Choice(fields.Incoming):
    id: fields.Button
    title: fields.Text = ""


class _Filled(fields.Incoming):
    name: Name | None = None
    body: fields.Text = ""
    response_json: fields.Text


class _Reply(fields.Incoming):
    type: Name
    button_reply: _Choice | None = None
    list_reply: _Choice | None = None
    nfm_reply: _Filled | None = None


class _Interactive(fields.Incoming):
    interactive: _Reply


CHOICES: tuple[Literal["button_reply", "list_reply"], ...] = ("button_reply", "list_reply")


def interactive(message: JsonObject) -> Content | None:
    """Read a pressed button, a chosen row, a filled form; None for what is no message."""
    reply = fields.checked(_Interactive, message).interactive
    if reply.type in CHOICES:
        choice = reply.button_reply if reply.type == "button_reply" else reply.list_reply
        if choice is None:
            raise BadRequest(f"interactive.{reply.type}", "is missing")
        return {"button": choice.id or None, "text": choice.title, "closes": True}
    if reply.type == "nfm_reply":
        return _flow(reply.nfm_reply)
    return None


def _flow(filled: _Filled | None) -> Content:
    if filled is None:
        raise BadRequest("interactive.nfm_reply", "is missing")
    response, repairs = repaired(_answers(filled.response_json))
    flow = {"name": filled.name, "response": response}
    return {"text": filled.body, "parts": {"flow": flow}, "closes": True, "repairs": repairs}


def _answers(text: str) -> JsonObject:
    """Read JSON in a text: mended as a text, it may still hold what cannot be stored."""
    try:
        return json_object(text)
    except BadRequest:
        raise BadRequest("interactive.nfm_reply.response_json", "must be a JSON object in a text") from None


def _dumped(model: fields.Incoming) -> JsonObject:
    return model.model_dump(exclude_none=True)


MESSAGES: Final[Mapping[str, Callable[[JsonObject], Content | None]]] = {
    "text": text,
    **dict.fromkeys(FILES, file),
    "location": location,
    "contacts": contacts,
    "order": order,
    "button": button,
    "interactive": interactive,
}
"""How each type of message is read."""
