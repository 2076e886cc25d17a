"""WhatsApp's sending side: one POST a message, with the reply's id in `biz_opaque_callback_data`.

Statuses bring that id back. There is nothing else to ask: without one, a reply without an answer stays unknown.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from pydantic import SecretStr

from onelane.channels import fields
from onelane.channels.meta import people
from onelane.channels.meta.codes import CODES, DENIED, NO_ACCESS, PAIR_LIMIT, TRANSIENT
from onelane.channels.meta.messages import GROUP
from onelane.channels.meta.settings import MetaSettings
from onelane.channels.sender import OnUnknown, Sender
from onelane.channels.sending import (
    FilePart,
    Outgoing,
    Piece,
    Request,
    Sign,
    SignKind,
    Uploading,
    fields_of,
    first,
    laid_over,
)
from onelane.channels.verdicts import (
    TOO_MANY,
    Response,
    Unsendable,
    Verdict,
    Word,
    accepted,
    too_many,
    unknown,
)
from onelane.model import Attachment, AttachmentKind, Button, JsonObject

WINDOW_S: Final = 86_400
BUTTONS_MAX: Final = 3
BUTTON_TITLE_MAX: Final = 20
BUTTON_ID_MAX: Final = 256
PAIR_WAIT_BASE: Final = 4
PAIR_WAITS_MAX: Final = 6
TYPES: Final[Mapping[AttachmentKind, str]] = {
    AttachmentKind.IMAGE: "image",
    AttachmentKind.VIDEO: "video",
    AttachmentKind.AUDIO: "audio",
    AttachmentKind.VOICE: "audio",
    AttachmentKind.STICKER: "sticker",
    AttachmentKind.FILE: "document",
}


class MetaSender(Sender):
    """Sends from a number of WhatsApp's Cloud API."""

    on_unknown: ClassVar[OnUnknown] = OnUnknown.ASK
    typing_every_s: ClassVar[float | None] = 20
    uploads: ClassVar[bool] = True
    text_max: ClassVar[int] = 4_096
    caption_max: ClassVar[int] = 1_024
    buttoned_max: ClassVar[int] = 1_024

    def __init__(self, settings: MetaSettings, token: SecretStr) -> None:
        """Take the settings and the token among them."""
        self._settings = settings
        self._headers = {"Authorization": f"Bearer {token.get_secret_value()}"}

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return self._settings.base_url

    def check(self, said: Piece) -> None:
        """Take files by address, or by the id of an upload."""
        if not all(one.id or one.url or one.file for one in said.media):
            raise Unsendable(Word.BAD_CONTENT, "media must have an address, an id of Meta's, or bytes")

    def has(self, buttons: Sequence[Button]) -> bool:
        """Take up to three buttons with short titles that differ."""
        return (
            0 < len(buttons) <= BUTTONS_MAX
            and all(0 < self.size(one.title) <= BUTTON_TITLE_MAX for one in buttons)
            and all(0 < len(one.id) <= BUTTON_ID_MAX for one in buttons)
            and len({one.title for one in buttons}) == len({one.id for one in buttons}) == len(buttons)
        )

    def upload(self, described: Attachment, data: bytes, out: Outgoing) -> Uploading | None:
        """Upload a file; Meta keeps it for 30 days."""
        return self._uploading(FilePart("file", described, data), out)

    def _uploading(self, part: FilePart, out: Outgoing) -> Uploading:
        address = f"{self._address(self._number(out.route))}/media"
        content = {"messaging_product": "whatsapp", "type": part.content_type()}
        response = yield Request.multipart("media", address, content, part, self._headers)
        media_id = response.content().get("id")
        if response.is_success and isinstance(media_id, str) and fields.is_visible(media_id):
            return part.described.model_copy(update={"id": media_id, "file": None})
        return unknown(response.status) if response.is_success else self.judge(out, response)

    def request(self, out: Outgoing) -> Request:
        """Write a message."""
        quoted = {"context": {"message_id": out.piece.quote}} if out.piece.quote else {}
        fixed = {
            "messaging_product": "whatsapp",
            **_receiver(out),
            "biz_opaque_callback_data": str(out.key),
        }
        content = laid_over(_content(out.piece) | quoted, out.piece.raw, fixed)
        return self._call("messages", self._number(out.route), content)

    def judge(self, out: Outgoing, response: Response) -> Verdict:
        """Take the message's id, or look the error's code up."""
        content = response.content()
        if response.is_success:
            provider_id = first(content.get("messages")).get("id")
            is_id = isinstance(provider_id, str) and fields.is_visible(provider_id)
            return accepted(str(provider_id)) if is_id else unknown(response.status)
        error = fields_of(content.get("error")) if response.is_refusal else {}
        code = error.get("code")
        meaning = CODES.get(str(code)) if isinstance(code, int) and not isinstance(code, bool) else None
        if (str(code), error.get("error_subcode")) == NO_ACCESS:
            meaning = DENIED
        elif meaning is None and error.get("is_transient") is True:
            meaning = TRANSIENT
        if meaning is None:
            return too_many(response) if response.status == TOO_MANY else unknown(code or response.status)
        wait_s = _pair_wait_s(out.attempt) if str(code) == PAIR_LIMIT else response.retry_after_s()
        return meaning.verdict(code, wait_s)

    def word_of(self, code: str) -> Word | None:
        """Return our word for the code of a `failed` status."""
        return CODES[code].word if code in CODES else None

    def presence(self, sign: Sign) -> Request | None:
        """Mark a message as read, and show that an answer is written: for 25 seconds, or until it comes."""
        typing = {"typing_indicator": {"type": "text"}} if sign.kind is SignKind.TYPING else {}
        content = {"messaging_product": "whatsapp", "status": "read", "message_id": sign.message_id, **typing}
        number = self._known_number(sign.route)
        return self._call("messages.read", number, content) if number else None

    def probe(self) -> Request | None:
        """Ask for our number's id, where the settings name it."""
        number = self._known_number(None)
        return Request.get("number", self._address(number), {"fields": "id"}, self._headers) if number else None

    def window_s(self, to: Sequence[str]) -> int | None:  # noqa: ARG002 - alike for everybody
        """Take anything but a template for a day."""
        return WINDOW_S

    def _number(self, route: JsonObject | None) -> str:
        if number := self._known_number(route):
            return number
        raise Unsendable(Word.NO_ROUTE, "no phone_number_id is known: neither a route nor the settings name one")

    def _known_number(self, route: JsonObject | None) -> str | None:
        number = (route or {}).get("phone_number_id") or self._settings.phone_number_id
        return number if isinstance(number, str) and number.isascii() and number.isdecimal() else None

    def _call(self, name: str, number: str, content: JsonObject) -> Request:
        return Request.json(name, f"{self._address(number)}/messages", content, self._headers)

    def _address(self, number: str) -> str:
        return f"{self._settings.base_url.rstrip('/')}/{self._settings.api_version}/{number}"


def _receiver(out: Outgoing) -> dict[str, str]:
    """Name the person as the route does, else by the aliases; a phone number and a scoped id may both be given."""
    if group := out.way("group_id") or next((one for one in out.to if one.startswith(GROUP)), None):
        return {"recipient_type": "group", "to": group.removeprefix(GROUP)}
    known = {name: value for name in ("to", "recipient") if (value := out.way(name))} or _by_alias(out.to)
    if not known:
        raise Unsendable(Word.NO_ROUTE, "neither a phone number nor a scoped id is known")
    return {"recipient_type": "individual", **known}


def _by_alias(aliases: Sequence[str]) -> dict[str, str]:
    phone = next((one for one in aliases if people.PHONE.fullmatch(one)), None)
    scoped = next((one for form in (people.SCOPED, people.PARENT) for one in aliases if form.fullmatch(one)), None)
    return {name: value for name, value in (("to", phone), ("recipient", scoped)) if value}


def _content(piece: Piece) -> JsonObject:
    if piece.template is not None:
        return {"type": "template", "template": piece.template}
    if piece.buttons:
        return {"type": "interactive", "interactive": _interactive(piece)}
    if piece.media:
        return _media(piece.media[0], piece.text)
    return {"type": "text", "text": {"body": piece.text}} if piece.text else {}


def _interactive(piece: Piece) -> JsonObject:
    replies = [{"type": "reply", "reply": {"id": one.id, "title": one.title}} for one in piece.buttons]
    return {"type": "button", "body": {"text": piece.text}, "action": {"buttons": replies}}


def _media(media: Attachment, caption: str) -> JsonObject:
    kind = TYPES[media.kind]
    described: dict[str, Any] = {"id": media.id} if media.id else {"link": media.url}
    if caption:
        described["caption"] = caption
    if kind == "document" and media.name:
        described["filename"] = media.name
    return {"type": kind, kind: described}


def _pair_wait_s(attempt: int) -> float:
    """Wait as Meta asks for: 1 s, 4 s, 16 s, … [second hand]."""
    return float(PAIR_WAIT_BASE ** min(max(attempt, 1) - 1, PAIR_WAITS_MAX))
