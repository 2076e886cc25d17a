"""Twilio's sending side: one form a message, with the reply's id in the address for its statuses.

Where no status comes, the account's list of messages shows whether a reply is there.
"""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from onelane.channels import fields
from onelane.channels.sender import OnUnknown, Sender
from onelane.channels.sending import LookUp, Outgoing, Piece, Request, Sign, SignKind
from onelane.channels.twilio.codes import CODES
from onelane.channels.twilio.settings import TwilioSettings
from onelane.channels.verdicts import (
    TOO_MANY,
    Outcome,
    Response,
    Unsendable,
    Verdict,
    Word,
    absent,
    accepted,
    code_of,
    too_many,
    unknown,
)
from onelane.model import AttachmentKind, JsonObject

WHATSAPP: Final = "whatsapp:"
WINDOW_S: Final = 86_400
PAGES_MAX: Final = 5
PAGE_SIZE: Final = "100"
SKEW: Final = timedelta(seconds=30)
"""By how much Twilio's clock may be behind ours; its times are whole seconds."""
OK: Final = 200
REFUSED: Final = frozenset({"failed", "undelivered", "canceled"})


class TwilioSender(Sender):
    """Sends SMS, MMS, WhatsApp and RCS messages from one account."""

    on_unknown: ClassVar[OnUnknown] = OnUnknown.ASK
    typing_every_s: ClassVar[float | None] = 20
    text_max: ClassVar[int] = 1_600
    caption_max: ClassVar[int] = 1_600
    captioned: ClassVar[frozenset[AttachmentKind]] = frozenset({AttachmentKind.IMAGE, AttachmentKind.VIDEO})

    def __init__(self, settings: TwilioSettings, account_sid: str) -> None:
        """Take the settings and the account among them."""
        self._settings = settings
        self._url = f"{settings.base_url.rstrip('/')}/2010-04-01/Accounts/{account_sid}/Messages.json"
        self._headers = {"Authorization": f"Basic {_login(settings, account_sid)}"}

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return self._settings.base_url

    def check(self, said: Piece) -> None:
        """Take files by address, and templates by their ContentSid."""
        if not all(one.url for one in said.media):
            raise Unsendable(Word.BAD_CONTENT, "media must have an address: Twilio fetches it")
        if said.template is not None and not isinstance(said.template.get("ContentSid"), str):
            raise Unsendable(Word.BAD_CONTENT, "a template must have a ContentSid, and may have ContentVariables")

    def request(self, out: Outgoing) -> Request:
        """Write a message, from the number that the user wrote to."""
        addresses = self._addresses(out)
        form = _texts({**_content(out.piece), **self._validity(addresses["To"]), **(out.piece.raw or {})})
        back = {"StatusCallback": f"{out.callback_url}?reply={out.key}"} if _can_call(out.callback_url) else {}
        return Request.form("Messages", self._url, {**form, **addresses, **back}, self._headers)

    def judge(self, out: Outgoing, response: Response) -> Verdict:  # noqa: ARG002 - alike for every reply
        """Take the message's sid, or look the error's code up. Most failures come later, as statuses."""
        content = response.content()
        if response.is_success:
            sid = content.get("sid")
            is_id = isinstance(sid, str) and fields.is_visible(sid)
            return accepted(str(sid)) if is_id else unknown(response.status)
        code = content.get("code") if response.is_refusal else None
        if meaning := CODES.get(code_of(code)):
            return meaning.verdict(code, response.retry_after_s())
        return too_many(response) if response.status == TOO_MANY else unknown(code or response.status)

    def word_of(self, code: str) -> Word | None:
        """Return our word for a status's ErrorCode."""
        return CODES[code].word if code in CODES else None

    def look_up(self, out: Outgoing, since: datetime, others: Mapping[str, str]) -> LookUp | None:
        """Read what was sent to this address since then.

        Not by DateSent: a message that is still queued has none. One that nobody knows, of another reply's text, is a
        copy of that. Of a text that is nobody's it may be ours as Twilio has changed it: then nobody can say.
        """
        try:
            addresses = self._addresses(out)
        except Unsendable:
            return None
        query = {name: value for name, value in addresses.items() if name in {"To", "From"}} | {"PageSize": PAGE_SIZE}
        request = Request.get("Messages.list", self._url, query, self._headers)
        return self._pages(request, out, since, others)

    def _pages(self, request: Request, out: Outgoing, since: datetime, others: Mapping[str, str]) -> LookUp:
        found: list[JsonObject] = []
        for _ in range(PAGES_MAX):
            response = yield request
            page = response.content()
            if response.status != OK or not isinstance(page.get("messages"), list):
                return unknown(page.get("code") or response.status)
            found += _objects(page["messages"])
            following = page.get("next_page_uri")
            if not following or (found and _is_older(found[-1], since)):
                return _found(out, found, since, others)
            if not (isinstance(following, str) and following.startswith(urlsplit(self._url).path)):
                return unknown()
            request = Request.get("Messages.list", self._at(following), {}, self._headers)
        return unknown()

    def presence(self, sign: Sign) -> Request | None:
        """Show typing to a user of WhatsApp, which marks as read too. Where the settings allow the beta."""
        is_whatsapp = any(one.startswith(WHATSAPP) for one in sign.to)
        if not (self._settings.typing and is_whatsapp and sign.kind is SignKind.TYPING):
            return None
        address = f"{self._settings.messaging_url.rstrip('/')}/v2/Indicators/Typing.json"
        form = {"channel": "whatsapp", "messageId": sign.message_id}
        return Request.form("Typing", address, form, self._headers)

    def probe(self) -> Request | None:
        """Ask for the account."""
        return Request.get("Account", self._url.replace("/Messages.json", ".json"), {}, self._headers)

    def window_s(self, to: Sequence[str]) -> int | None:
        """Take anything but a template for a day, on WhatsApp."""
        return WINDOW_S if to and to[0].startswith(WHATSAPP) else None

    def _addresses(self, out: Outgoing) -> dict[str, str]:
        """Name the user and us: two addresses of one kind, as +1…, or whatsapp:…, or only the service that has ours."""
        for ours in filter(None, (out.way("from"), self._settings.from_number)):
            if to := next((one for one in out.to if _kind(one) == _kind(ours)), None):
                return {"To": to, "From": ours}
        if out.to and (service := self._settings.messaging_service_sid):
            return {"To": out.to[0], "MessagingServiceSid": service}
        raise Unsendable(Word.NO_ROUTE, "no address of the user's, or none of ours of its kind: see from_number")

    def _validity(self, to: str) -> dict[str, str]:
        """Let an SMS that waits at Twilio end before nobody expects it any more; the default is ten hours."""
        return {} if _kind(to) else {"ValidityPeriod": str(self._settings.validity_period_s)}

    def _at(self, path: str) -> str:
        return "{0.scheme}://{0.netloc}".format(urlsplit(self._url)) + path


def _login(settings: TwilioSettings, account_sid: str) -> str:
    """Log in with the API key, else with the account's token."""
    name, secret = settings.api_key, settings.api_secret
    if name is None or secret is None:
        name, secret = account_sid, settings.secrets[0]
    return b64encode(f"{name}:{secret.get_secret_value()}".encode()).decode()


def _kind(address: str) -> str:
    """Return what stands before an address: whatsapp, messenger, rcs, or nothing for SMS."""
    return address.rpartition(":")[0]


def _can_call(url: str | None) -> bool:
    """Whether Twilio takes an address for statuses: it refuses the whole message for a host with an underscore."""
    return url is not None and "_" not in (urlsplit(url).hostname or "_")


def _content(piece: Piece) -> dict[str, Any]:
    if piece.template is not None:
        return {name: piece.template[name] for name in ("ContentSid", "ContentVariables") if name in piece.template}
    media = {"MediaUrl": piece.media[0].url} if piece.media else {}
    return ({"Body": piece.text} if piece.text else {}) | media


def _texts(values: JsonObject) -> dict[str, str]:
    """Write values as a form has them."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def _objects(values: Any) -> Iterator[JsonObject]:
    return (value for value in values if isinstance(value, dict))


def _found(out: Outgoing, messages: Sequence[JsonObject], since: datetime, others: Mapping[str, str]) -> Verdict:
    """Find the reply among messages, newest first."""
    if not all(map(_created, messages)):
        return unknown()
    nobodys = [
        one
        for one in messages
        if not _is_older(one, since) and one.get("direction") != "inbound" and one.get("sid") not in others
    ]
    if not nobodys:
        return absent()
    if ours := [one for one in nobodys if _is_same(one.get("body"), out.piece.text)]:
        return _stands(ours[-1])
    are_copies = all(any(_is_same(one.get("body"), text) for text in others.values()) for one in nobodys)
    return absent() if are_copies else unknown()


def _is_older(message: JsonObject, since: datetime) -> bool:
    created = _created(message)
    return created is not None and created < since - SKEW


def _created(message: JsonObject) -> datetime | None:
    try:
        return parsedate_to_datetime(str(message.get("date_created"))).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _is_same(body: Any, text: str) -> bool:
    return isinstance(body, str) and body.strip() == text.strip()


def _stands(message: JsonObject) -> Verdict:
    """Judge a message that is there: Twilio may have refused it since."""
    sid, code = message.get("sid"), message.get("error_code")
    if not (isinstance(sid, str) and fields.is_visible(sid)):
        return unknown()
    if message.get("status") not in REFUSED:
        return accepted(sid)
    word = CODES[code_of(code)].word if code_of(code) in CODES else Word.UNREACHABLE
    return Verdict(Outcome.NEVER, word, code_of(code), provider_id=sid)
