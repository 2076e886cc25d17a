"""What a Telegram message says: text, mentions, files, and parts that are neither."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from onelane.channels import fields
from onelane.channels.telegram.chats import Handle, Name, Number, User
from onelane.model import Attachment, AttachmentKind, JsonObject

ENTITIES_MAX = 1_000
FILE_ID_MAX = 1_024
CHOICES_MAX = 100
JPEG = "image/jpeg"
FILES: Final = {
    "live_photo": AttachmentKind.VIDEO,
    "video": AttachmentKind.VIDEO,
    "animation": AttachmentKind.VIDEO,
    "audio": AttachmentKind.AUDIO,
    "voice": AttachmentKind.VOICE,
    "video_note": AttachmentKind.VIDEO,
    "document": AttachmentKind.FILE,
    "sticker": AttachmentKind.STICKER,
}
"""The fields that hold a file, and what it is to its sender. Photos have several sizes, and are not among them."""
AS_GIVEN: Final = (
    "checklist",
    "game",
    "giveaway",
    "giveaway_winners",
    "invoice",
    "paid_media",
    "passport_data",
    "rich_message",
    "story",
)
"""Content that becomes a part of its own name, as Telegram gives it."""


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic takes a ValueError for a refusal
    return value


Real = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=fields.TEXT_MAX)]


class Entity(fields.Incoming):
    """A marked stretch of the text, counted in UTF-16 code units."""

    type: str
    offset: Number
    length: Number
    user: User | None = None


class File(fields.Incoming):
    """A file, by the id with which getFile finds it."""

    file_id: Annotated[str, Field(min_length=1, max_length=FILE_ID_MAX)]
    mime_type: fields.ContentType | None = None
    file_name: Name | None = None
    file_size: Number | None = None
    width: Number = 0
    height: Number = 0


class Location(fields.Incoming):
    """A point on the map."""

    latitude: Real
    longitude: Real


class Venue(fields.Incoming):
    """A place with a name; its location stands beside it too."""

    title: Name = ""
    address: Name = ""


class Contact(fields.Incoming):
    """Somebody's card."""

    phone_number: Name
    first_name: Name = ""
    last_name: Name = ""
    user_id: Number | None = None
    vcard: Text | None = None


class Dice(fields.Incoming):
    """A dice, a dart, a slot machine."""

    emoji: Name
    value: Number


class Choice(fields.Incoming):
    """One answer of a poll."""

    text: Text


class Poll(fields.Incoming):
    """A question with answers to choose from."""

    id: Handle
    question: Text
    options: Annotated[tuple[Choice, ...], Field(max_length=CHOICES_MAX)] = ()


class WebAppData(fields.Incoming):
    """What a mini app sent."""

    data: Text
    button_text: Name = ""


class Payment(fields.Incoming):
    """A payment that succeeded; amounts are in the currency's smallest unit."""

    currency: Name
    total_amount: Number
    invoice_payload: Text = ""
    telegram_payment_charge_id: Name = ""
    provider_payment_charge_id: Name = ""


class Content(fields.Incoming):
    """The fields of a message that hold what its author made."""

    text: Text | None = None
    caption: Text | None = None
    entities: Annotated[tuple[Entity, ...], Field(max_length=ENTITIES_MAX)] = ()
    caption_entities: Annotated[tuple[Entity, ...], Field(max_length=ENTITIES_MAX)] = ()
    photo: Annotated[tuple[File, ...], Field(max_length=fields.ATTACHMENTS_MAX)] = ()
    live_photo: File | None = None
    video: File | None = None
    animation: File | None = None
    audio: File | None = None
    voice: File | None = None
    video_note: File | None = None
    document: File | None = None
    sticker: File | None = None
    location: Location | None = None
    venue: Venue | None = None
    contact: Contact | None = None
    dice: Dice | None = None
    poll: Poll | None = None
    web_app_data: WebAppData | None = None
    successful_payment: Payment | None = None
    media_group_id: Handle | None = None
    forward_origin: JsonObject | None = None

    @property
    def words(self) -> str:
        """Return the text, or what stands below the picture."""
        return self.text or self.caption or ""

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Return its files; of a photo the largest size."""
        return tuple(self._files())

    def _files(self) -> Iterator[Attachment]:
        if self.photo:
            largest = max(self.photo, key=lambda size: size.width * size.height)
            yield _attachment(largest, AttachmentKind.IMAGE, JPEG)
        for name, kind in FILES.items():
            file: File | None = getattr(self, name)
            # An animation stands there a second time, as the document that older bots know.
            if file is not None and not (name == "document" and self.animation):
                yield _attachment(file, kind)

    def parts(self, raw: JsonObject) -> JsonObject:
        """Return what is neither text nor file, by its name."""
        return {
            **{name: fields.bounded(raw[name]) or {} for name in AS_GIVEN if _is_object(raw, name)},
            **self._typed(),
        }

    def _typed(self) -> JsonObject:
        found: dict[str, Any] = {
            "location": self.location and _location(self.location, self.venue),
            "contacts": self.contact and [_card(self.contact)],
            "dice": self.dice and self.dice.model_dump(),
            "poll": self.poll and {**self.poll.model_dump(), "options": [one.text for one in self.poll.options]},
            "web_app": self.web_app_data and self.web_app_data.model_dump(),
            "payment": self.successful_payment and self.successful_payment.model_dump(),
            "album": self.media_group_id,
            "forwarded": self.forward_origin is not None or None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def marked(self) -> Iterator[tuple[Entity, str]]:
        """Walk through the marked stretches of the text."""
        # Telegram counts in UTF-16 code units: two bytes each.
        units = self.words.encode("utf-16-le")
        for entity in self.entities if self.text else self.caption_entities:
            if entity.offset >= 0 and entity.length > 0:
                stretch = units[2 * entity.offset : 2 * (entity.offset + entity.length)]
                yield entity, stretch.decode("utf-16-le", "replace")


def has_content(raw: JsonObject) -> bool:
    """Whether a message's author made something, whatever it is: no service message."""
    return any(name in raw for name in CONTENT)


def _is_object(raw: JsonObject, name: str) -> bool:
    return isinstance(raw.get(name), dict)


def _attachment(file: File, kind: AttachmentKind, content_type: str | None = None) -> Attachment:
    return Attachment(
        id=file.file_id,
        kind=kind,
        content_type=file.mime_type or content_type,
        name=file.file_name,
        size=file.file_size,
    )


def _location(location: Location, venue: Venue | None) -> JsonObject:
    named = {"name": venue.title, "address": venue.address} if venue else {}
    return {**location.model_dump(), **{name: value for name, value in named.items() if value}}


def _card(contact: Contact) -> JsonObject:
    name = " ".join(filter(None, (contact.first_name, contact.last_name)))
    more = contact.model_dump(include={"user_id", "vcard"}, exclude_none=True)
    return {"name": name, "phones": [contact.phone_number], **more}


CONTENT: Final = frozenset(
    {"text", "caption", "photo", "location", "venue", "contact", "dice", "poll", "web_app_data", "successful_payment"}
    | FILES.keys()
    | set(AS_GIVEN)
)
