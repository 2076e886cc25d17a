"""Telegram's sending side: one call a message. It takes no key, has no statuses and cannot be asked.

The token is in every address.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from pydantic import SecretStr

from onelane.channels.sender import Sender
from onelane.channels.sending import FilePart, Outgoing, Piece, Request, Sign, SignKind, fields_of, laid_over
from onelane.channels.telegram.codes import CODES, meaning_of
from onelane.channels.verdicts import (
    TOO_MANY,
    WAIT_MAX_S,
    Outcome,
    Response,
    Scope,
    Unsendable,
    Verdict,
    Word,
    accepted,
    code_of,
    unknown,
)
from onelane.model import AttachmentKind, Button, JsonObject

METHOD: Final = re.compile("send[A-Z][A-Za-z]{1,62}")
CHAT_ID: Final = re.compile(r"-?[0-9]{1,16}")
PLACE: Final = ("chat_id", "message_thread_id", "direct_messages_topic_id", "business_connection_id")
"""What a route holds besides is for other methods."""
BUTTONS_MAX: Final = 100
BUTTON_DATA_MAX_BYTES: Final = 64
BUTTON_TITLE_MAX: Final = 256
METHODS: Final[Mapping[AttachmentKind, str]] = {
    AttachmentKind.IMAGE: "photo",
    AttachmentKind.VIDEO: "video",
    AttachmentKind.AUDIO: "audio",
    AttachmentKind.VOICE: "voice",
    AttachmentKind.STICKER: "sticker",
    AttachmentKind.FILE: "document",
}
"""What the argument is called, and the method after `send`."""


class TelegramSender(Sender):
    """Sends as one bot."""

    typing_every_s: ClassVar[float | None] = 4.5
    text_max: ClassVar[int] = 4_096
    caption_max: ClassVar[int] = 1_024
    captioned: ClassVar[frozenset[AttachmentKind]] = frozenset(AttachmentKind) - {AttachmentKind.STICKER}
    buttoned_max: ClassVar[int] = 4_096

    def __init__(self, base_url: str, token: SecretStr) -> None:
        """Take where the Bot API is, and the bot's token."""
        self._base_url, self._token = base_url, token

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return self._base_url

    def check(self, said: Piece) -> None:
        """Take files by address or id."""
        if said.template is not None:
            raise Unsendable(Word.BAD_CONTENT, "Telegram has no templates")
        if not all(one.id or one.url or one.file for one in said.media):
            raise Unsendable(Word.BAD_CONTENT, "media must have an address, an id of Telegram's, or bytes")

    def has(self, buttons: Sequence[Button]) -> bool:
        """Take buttons whose ids are short enough."""
        return 0 < len(buttons) <= BUTTONS_MAX and all(
            0 < len(one.id.encode(errors="replace")) <= BUTTON_DATA_MAX_BYTES and 0 < len(one.title) <= BUTTON_TITLE_MAX
            for one in buttons
        )

    def request(self, out: Outgoing) -> Request:
        """Write a call of sendMessage, of the method for a file, or of `raw`'s own: `{"method": "sendLocation", …}`."""
        method, content = _content(out.piece)
        raw, place = dict(out.piece.raw or {}), _place(out)
        if METHOD.fullmatch(asked := str(raw.pop("method", ""))):
            method = asked
        values = laid_over(content | _quoted(out.piece.quote, place), raw, place)
        if (part := _file_part(out)) is None:
            return self._call(method, values)
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
        return Request.multipart(method, self._address(method), texts, part)

    def judge(self, out: Outgoing, response: Response) -> Verdict:
        """Take the message's number, or look the error's code up."""
        content = response.content()
        if response.is_success:
            return (
                _sent(out, fields_of(content.get("result"))) if content.get("ok") is True else unknown(response.status)
            )
        code = _code(content) if response.is_refusal else None
        if code is None:
            return _user_limit(response) if response.status == TOO_MANY else unknown(response.status)
        parameters = fields_of(content.get("parameters"))
        if moved := _moved(out, code, parameters):
            return moved
        meaning = meaning_of(str(code), str(content.get("description", "")))
        if meaning is None:
            return unknown(code)
        wait_s = _seconds(parameters.get("retry_after"))
        return meaning.verdict(code, response.retry_after_s() if wait_s is None else wait_s)

    def word_of(self, code: str) -> Word | None:
        """Return our word for a code."""
        meaning = meaning_of(code, "")
        return meaning.word if meaning else None

    def presence(self, sign: Sign) -> Request | None:
        """Mark a business chat as read, or show for five seconds that a bot writes."""
        route = sign.route or {}
        place = _known(route)
        if "chat_id" not in place:
            return None
        if sign.kind is SignKind.TYPING:
            return self._call("sendChatAction", {**_withtopic(place), "action": "typing"})
        number = _number_in(sign.message_id)
        if "business_connection_id" in place and number is not None:
            business, chat = place["business_connection_id"], place["chat_id"]
            content = {"business_connection_id": business, "chat_id": chat, "message_id": number}
            return self._call("readBusinessMessage", content)
        return None

    def acknowledge(self, route: JsonObject | None) -> Request | None:
        """End a pressed button's waiting."""
        callback = (route or {}).get("callback_query_id")
        return self._call("answerCallbackQuery", {"callback_query_id": callback}) if callback else None

    def probe(self) -> Request | None:
        """Ask who the bot is."""
        return self._call("getMe", {})

    def _call(self, method: str, content: JsonObject) -> Request:
        return Request.json(method, self._address(method), content)

    def _address(self, method: str) -> str:
        return f"{self._base_url}/bot{self._token.get_secret_value()}/{method}"


def _place(out: Outgoing) -> JsonObject:
    route = out.route or {}
    if "chat_id" in route:
        return _known(route)
    chat = next((one for one in out.to if CHAT_ID.fullmatch(one)), None)
    if chat is None or "guest_query_id" in route:
        raise Unsendable(Word.NO_ROUTE, "no chat is known in which the bot may write")
    return {"chat_id": int(chat)}


def _known(route: JsonObject) -> JsonObject:
    return {name: route[name] for name in PLACE if name in route}


def _withtopic(place: JsonObject) -> JsonObject:
    return {name: value for name, value in place.items() if name != "direct_messages_topic_id"}


def _quoted(quote: str | None, place: JsonObject) -> JsonObject:
    """Quote a message of the same chat; where it is gone, the reply is sent without."""
    number = _number_in(quote or "", of_chat=str(place["chat_id"]))
    if number is None:
        return {}
    return {"reply_parameters": {"message_id": number, "allow_sending_without_reply": True}}


def _number_in(name: str, of_chat: str | None = None) -> int | None:
    """Return a message's number, out of the name that our webhooks give it: [business:]chat:number."""
    *before, number = name.split(":")
    if not before or not number.isascii() or not number.isdecimal() or len(number) > 16:  # noqa: PLR2004 - as ids have
        return None
    return int(number) if of_chat in {None, before[-1]} else None


def _content(piece: Piece) -> tuple[str, JsonObject]:
    keyboard = [[{"text": one.title, "callback_data": one.id}] for one in piece.buttons]
    buttons = {"reply_markup": {"inline_keyboard": keyboard}} if keyboard else {}
    if not piece.media:
        return "sendMessage", ({"text": piece.text} if piece.text else {}) | buttons
    media = piece.media[0]
    name = METHODS[media.kind]
    caption = {"caption": piece.text} if piece.text else {}
    where = {name: media.id or media.url} if media.id or media.url else {}
    return f"send{name.capitalize()}", {**where, **caption, **buttons}


def _file_part(out: Outgoing) -> FilePart | None:
    """Return the file whose bytes go with the request."""
    media = next((one for one in out.piece.media if one.file in out.files), None)
    return FilePart(METHODS[media.kind], media, out.files[media.file]) if media and media.file else None


def _sent(out: Outgoing, message: JsonObject) -> Verdict:
    """Name a message as our webhooks do."""
    number, chat = message.get("message_id"), fields_of(message.get("chat")).get("id")
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in (number, chat)) or not number:
        return unknown()
    return accepted(":".join(filter(None, (out.way("business_connection_id"), str(chat), str(number)))))


def _code(content: JsonObject) -> int | None:
    code = content.get("error_code") if content.get("ok") is False else None
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _user_limit(response: Response) -> Verdict:
    return CODES[str(TOO_MANY)].verdict(TOO_MANY, response.retry_after_s())


def _moved(out: Outgoing, code: int, parameters: JsonObject) -> Verdict | None:
    """Read that a group became a supergroup: the reply is sent there, at once."""
    chat = parameters.get("migrate_to_chat_id")
    if not isinstance(chat, int) or isinstance(chat, bool):
        return None
    route = {**(out.route or {}), "chat_id": chat}
    return Verdict(Outcome.NOT_NOW, Word.MOVED, code_of(code), wait_s=0, counts=False, route=route, scope=Scope.USER)


def _seconds(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return min(max(float(value), 0.0), WAIT_MAX_S) if is_number else None
