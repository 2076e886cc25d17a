"""What Twilio's forms say: a message or an opt-out of a user, or what became of one of our replies.

What is marked so is from memory or from others' reports: Twilio adds fields without notice. All of a form is in `raw`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any, Final
from uuid import UUID

from pydantic import Field

from onelane.channels import fields
from onelane.channels.twilio.forms import Form
from onelane.deliveries import Delivery, Ignored, Item, Kind, Status
from onelane.errors import BadRequest
from onelane.model import Attachment, AttachmentKind, Author, JsonObject

CONTENT: Final = frozenset({"Body", "NumMedia", "ButtonPayload"})
STATUS: Final = ("MessageStatus", "SmsStatus")
IDS: Final = ("MessageSid", "SmsMessageSid", "SmsSid")
NAME_MAX = 256
STATES: Final[Mapping[str, str]] = {
    "accepted": "sent",
    "scheduled": "sent",
    "queued": "sent",
    "sending": "sent",
    "sent": "sent",
    "partially_delivered": "sent",
    "delivered": "delivered",
    "read": "read",
    "undelivered": "failed",
    "failed": "failed",
    "canceled": "failed",
}
"""Our states by Twilio's: from `accepted` on Twilio has the reply."""
INBOUND_STATES: Final = frozenset({"receiving", "received"})
OPT_OUTS: Final[Mapping[str, str]] = {"STOP": "opted_out", "START": "opted_in", "HELP": "service"}
"""Events by OptOutType: Twilio has answered these words itself."""
KINDS: Final[Mapping[str, AttachmentKind]] = {
    "image": AttachmentKind.IMAGE,
    "video": AttachmentKind.VIDEO,
    "audio": AttachmentKind.AUDIO,
}
READ: Final = re.compile(
    r"MessageSid|SmsMessageSid|SmsSid|AccountSid|From|To|Body|NumMedia|Media(Url|ContentType)\d+|WaId|ExternalUserId"
    r"|ProfileName|Button(Payload|Text)|List(Id|Title|Description)|Latitude|Longitude|Address|Label|Forwarded"
    r"|FrequentlyForwarded|Referral\w+|OriginalRepliedMessageSid|OptOutType|MessageType|MessageStatus|SmsStatus"
    r"|ErrorCode|EventType|ConversationSid"
)
"""The fields that decide something: given twice, the whole form is not understood."""


def is_read(name: str) -> bool:
    """Whether a field decides something."""
    return READ.fullmatch(name) is not None


def items(form: Form, key: UUID | None) -> Iterator[Item]:
    """Read a form; raise BadRequest if it is neither a message nor a status. `key` is the reply's id in the address."""
    if form.get("ConversationSid") or form.get("EventType").startswith("on"):
        raise BadRequest("EventType", "is of the Conversations product, which is not supported")
    if any(form.get(name) for name in STATUS) and CONTENT.isdisjoint(form.fields):
        yield _status(form, key)
    else:
        yield _delivery(form)


def _status(form: Form, key: UUID | None) -> Item:
    word = form.get("MessageStatus") or form.get("SmsStatus")
    if word in INBOUND_STATES:
        return Ignored("inbound_status")
    if word not in STATES:
        raise BadRequest("MessageStatus", "is unknown")
    return Status(
        provider_id=fields.checked(_Line, _names(form)).external_id,
        state=STATES[word],
        key=key,
        failure_code=form.text("ErrorCode", fields.ID_MAX) or None,
    )


def _delivery(form: Form) -> Delivery:
    message = fields.checked(_Message, _names(form))
    button = _button(form)
    label = form.text("ButtonText", fields.TEXT_MAX) or form.text("ListTitle", fields.TEXT_MAX)
    text = form.text("Body", fields.TEXT_MAX) or label
    attachments = tuple(_attachments(form))
    parts = _parts(form)
    event = _event(form, is_empty=not (text or button or attachments or parts))
    if event == "service":
        parts = {**parts, "service": {"what": "help"}}
    if event == "reaction":
        parts, text = {**parts, "reaction": {"emoji": text or None}}, ""
    name = form.text("ProfileName", NAME_MAX)
    return Delivery(
        senders=_senders(form, message.sender),
        external_id=message.external_id,
        kind=Kind.EVENT if event else Kind.MESSAGE,
        event=event,
        text=text,
        button=button,
        closes=button is not None,
        attachments=attachments,
        parts=parts,
        raw=_raw(form, is_needed=event == "unsupported"),
        quoted=_quoted(form),
        author=Author(id=message.sender, name=name) if name else None,
        route={"from": form.text("To", fields.SENDER_MAX)} if form.get("To") else None,
        repairs=tuple(sorted(form.repairs)),
    )


class _Line(fields.Incoming):
    external_id: fields.ExternalId = Field(alias="MessageSid")


class _Message(_Line):
    sender: fields.Sender = Field(alias="From")


class _Media(fields.Incoming):
    url: fields.Url
    content_type: fields.ContentType


def _names(form: Form) -> dict[str, str]:
    """Return the fields that say which message and whose it is."""
    given = {"MessageSid": next(filter(None, map(form.get, IDS)), None), "From": form.fields.get("From")}
    return {name: value for name, value in given.items() if value is not None}


def _senders(form: Form, sender: str) -> tuple[str, ...]:
    """Name everything that means the person, in the spelling of From; ExternalUserId is not verified."""
    prefix, colon, _ = sender.rpartition(":")
    number = form.get("WaId").removeprefix("+")
    found = [sender]
    if number.isascii() and number.isdigit():
        found.append(f"whatsapp:+{number}")
    if scoped := form.get("ExternalUserId").removeprefix(f"{prefix}{colon}").strip():
        found.append(f"{prefix}{colon}{scoped}")
    return tuple(dict.fromkeys(one for one in found if len(one) <= fields.SENDER_MAX))


def _button(form: Form) -> str | None:
    button = form.get("ButtonPayload") or form.get("ListId")
    if len(button) > fields.BUTTON_MAX:
        raise BadRequest("ButtonPayload", f"must be at most {fields.BUTTON_MAX} characters")
    return button or None


def _attachments(form: Form) -> Iterator[Attachment]:
    """Read the files. One whose address cannot be used is left out and marked; it is in `raw`."""
    numbers = form.numbered("MediaUrl")
    if len(numbers) > fields.ATTACHMENTS_MAX or form.get("NumMedia") not in {"", str(len(numbers))}:
        form.repairs.add("media")
    for number in numbers[: fields.ATTACHMENTS_MAX]:
        content_type = form.get(f"MediaContentType{number}")
        try:
            media = fields.checked(_Media, {"url": form.get(f"MediaUrl{number}"), "content_type": content_type})
        except BadRequest:
            form.repairs.add("media")
            continue
        yield Attachment(url=media.url, kind=_kind(form, content_type), content_type=content_type or None)


def _kind(form: Form, content_type: str) -> AttachmentKind:
    if form.get("MessageType") == "sticker":
        return AttachmentKind.STICKER
    return KINDS.get(content_type.partition("/")[0].lower(), AttachmentKind.FILE)


def _parts(form: Form) -> JsonObject:
    found: dict[str, Any] = {
        "location": _location(form),
        "referral": _snake_cased(form, "Referral"),
        "list": _snake_cased(form, "List") if form.get("ListDescription") else None,
        "forwarded": "true" in {form.get("Forwarded").lower(), form.get("FrequentlyForwarded").lower()},
    }
    return {name: part for name, part in found.items() if part}


def _location(form: Form) -> JsonObject | None:
    place = [_degrees(form.get(name)) for name in ("Latitude", "Longitude")]
    if None in place:
        form.repairs |= {"location"} if form.get("Latitude") or form.get("Longitude") else set()
        return None
    words = {"name": form.get("Label"), "address": form.get("Address")}
    return {"latitude": place[0], "longitude": place[1], **{name: word for name, word in words.items() if word}}


def _degrees(text: str) -> float | None:
    with suppress(ValueError):
        if isfinite(number := float(text)):
            return number
    return None


def _snake_cased(form: Form, prefix: str) -> JsonObject:
    """Collect the fields that begin alike, in our spelling: ReferralSourceUrl becomes source_url."""
    return {
        re.sub(r"(?<!^)(?=[A-Z])", "_", name.removeprefix(prefix)).lower(): value
        for name, value in form.fields.items()
        if name.startswith(prefix) and name != prefix and value
    }


def _event(form: Form, *, is_empty: bool) -> str | None:
    """Name what is no message. Of an unknown type without anything in it the bot would hear an empty text."""
    kind = form.get("MessageType").lower()
    if event := OPT_OUTS.get(form.get("OptOutType").upper()):
        return event
    if kind == "reaction":
        return "reaction"
    return "unsupported" if is_empty and kind not in {"", "text"} else None


def _raw(form: Form, *, is_needed: bool) -> JsonObject | None:
    """Return the form, without its text where it is too large with it."""
    without = {name: value for name, value in form.fields.items() if name != "Body"}
    raw = fields.bounded(form.fields) or fields.bounded(without)
    if raw is None and is_needed:
        raise BadRequest("MessageType", "is unknown, and the form is too large to be handed on")
    return raw


def _quoted(form: Form) -> str | None:
    with suppress(BadRequest):
        return fields.checked(_Line, {"MessageSid": form.get("OriginalRepliedMessageSid")}).external_id
    return None
