"""What a body of ours says: a message, an event, an echo, another name of a person, or what became of a reply.

The forms are our own: docs/CHANNELS.md describes them.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BeforeValidator, Field

from onelane.channels import fields
from onelane.channels.bodies import json_object, repaired
from onelane.deliveries import Delivery, IdentityChange, Item, Kind, Status
from onelane.errors import BadRequest
from onelane.model import Attachment, AttachmentKind, Author, JsonObject
from onelane.storable import is_storable

YEARS = range(1970, 3000)
NAMES_MAX = 16
NAMES: Final = ("user", "senders", "conversation", "adds", "drops", "reply_to")
"""Mended, one of these would name somebody or something else."""


def item_of(delivery_id: str, body: bytes) -> Item:
    """Read a body; raise BadRequest for what is not understood."""
    given = json_object(body)
    for name in NAMES:
        if not all(is_storable(one) for one in _texts(given.get(name))):
            raise BadRequest(name, "must not contain NUL characters or lone surrogates")
    content, repairs = repaired(given)
    content = {**content, "webhook-id": delivery_id}
    kind = content.get("type") or ("event" if content.get("event") else "message")
    if kind == "identity":
        return _identity(fields.checked(_Identity, content))
    if kind == "status":
        return _status(fields.checked(_Status, content))
    if kind not in list(Kind):
        raise BadRequest("type", f"must be {', '.join(Kind)}, identity or status")
    return _delivery(Kind(kind), content, set(repairs))


def _delivery(kind: Kind, content: JsonObject, repairs: set[str]) -> Delivery:
    text = content.get("text")
    if isinstance(text, str) and len(text) > fields.TEXT_MAX:
        content = {**content, "text": text[: fields.TEXT_MAX]}
        repairs.add("cut")
    body = fields.checked(_Line, content)
    if kind is Kind.EVENT and not body.event:
        raise BadRequest("event", "is missing")
    if kind is not Kind.EVENT and not (body.text or body.button or body.attachments or body.parts):
        raise BadRequest("text", "must not be empty without a button, attachments or parts")
    return Delivery(
        senders=_senders(body),
        conversation=body.conversation,
        external_id=body.external_id,
        kind=kind,
        event=body.event if kind is Kind.EVENT else None,
        text=body.text,
        button=body.button or None,
        closes=body.closes or bool(body.button),
        attachments=tuple(Attachment(**one.model_dump()) for one in body.attachments or ()),
        parts=body.parts or {},
        raw=_raw(content),
        quoted=body.reply_to,
        author=Author(id=body.author.id, name=body.author.name) if body.author else None,
        mentioned=body.mentioned,
        repairs=tuple(sorted(repairs)),
        route=body.route,
        sent_at=body.sent_at,
    )


def _identity(body: "_Identity") -> IdentityChange:
    if not (body.adds or body.drops or body.has_new_owner):
        raise BadRequest("adds", "must not be empty without drops or has_new_owner")
    return IdentityChange(
        senders=_senders(body),
        external_id=body.external_id,
        adds=body.adds,
        drops=body.drops,
        has_new_owner=body.has_new_owner,
        route=body.route,
        sent_at=body.sent_at,
    )


def _status(body: "_Status") -> Status:
    return Status(
        provider_id=body.provider_id,
        state=body.state,
        key=body.key,
        participant=body.participant,
        at=body.sent_at,
        failure_code=body.failure_code,
    )


def _senders(body: "_Named") -> tuple[str, ...]:
    """Name the person: `user` stands before `senders`."""
    names = tuple(dict.fromkeys((*((body.user,) if body.user is not None else ()), *(body.senders or ()))))
    if not names:
        raise BadRequest("user", "is missing")
    return names


def _texts(value: Any) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def _raw(content: JsonObject) -> JsonObject | None:
    """Return the whole body if there is more in it than is understood here."""
    sent = {name: value for name, value in content.items() if name != "webhook-id"}
    return fields.bounded(sent) if sent.keys() - {"type", *_Line.model_fields} else None


def _instant(value: object) -> object:
    """Read ISO 8601 with an offset; a number of seconds or a local time would be a guess."""
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else None
        if instant is not None and instant.tzinfo is not None and instant.year in YEARS:
            return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be ISO 8601 with an offset, for example 2026-01-16T20:39:06+01:00")


Instant = Annotated[datetime | None, BeforeValidator(_instant)]
Names = Annotated[tuple[fields.Sender, ...], Field(max_length=NAMES_MAX)]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,63}$")]


class _Attachment(fields.Incoming):
    url: fields.Url
    kind: AttachmentKind = AttachmentKind.FILE
    content_type: fields.ContentType | None = None
    name: fields.Sender | None = None
    size: Annotated[int, Field(ge=0)] | None = None


class _Author(fields.Incoming):
    id: fields.Sender
    name: fields.Sender | None = None


class _Named(fields.Incoming):
    external_id: fields.ExternalId = Field(alias="webhook-id")
    user: fields.Sender | None = None
    senders: Names | None = None
    route: JsonObject | None = None
    sent_at: Instant = None


class _Line(_Named):
    conversation: fields.Sender | None = None
    event: Word | None = None
    text: fields.Text = ""
    button: fields.Button | None = None
    closes: bool = False
    attachments: Annotated[tuple[_Attachment, ...], Field(max_length=fields.ATTACHMENTS_MAX)] | None = None
    parts: JsonObject | None = None
    reply_to: fields.ExternalId | None = None
    author: _Author | None = None
    mentioned: bool = False


class _Identity(_Named):
    adds: Names = ()
    drops: Names = ()
    has_new_owner: bool = False


class _Status(fields.Incoming):
    provider_id: fields.ExternalId
    state: Annotated[str, Field(pattern="^(sent|delivered|read|failed)$")]
    key: UUID | None = None
    participant: fields.Sender | None = None
    failure_code: fields.ExternalId | None = None
    sent_at: Instant = None
