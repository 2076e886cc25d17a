"""Twilio's messaging webhooks: forms, signed over the public address and the fields.

The signature is ten lines of HMAC; the SDK that has them is 51 MB, and signs what the tests verify here.
"""

import hmac
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Annotated, ClassVar
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from pydantic import Field

from onelane.channels import fields
from onelane.channels.provider import Answer, Inbound, Parsed, Persona, Provider, Signed
from onelane.deliveries import Accepted, Delivery, Item
from onelane.errors import BadRequest, BadSignature, Unsupported
from onelane.model import Attachment

FORM = "application/x-www-form-urlencoded"
FIELDS_MAX = 1_000
EMPTY_TWIML = '<?xml version="1.0" encoding="UTF-8"?><Response/>'
CONTENT = frozenset({"Body", "NumMedia", "ButtonPayload"})
STATUS = frozenset({"MessageStatus", "SmsStatus"})
MEDIA = ("MediaUrl", "MediaContentType")
DEFAULT_PORTS = {"http": 80, "https": 443}

Pairs = Sequence[tuple[str, str]]


class TwilioSettings(fields.ProviderSettings):
    """What `twilio` needs to know."""

    secrets: fields.Secrets
    """The account's auth tokens."""


class Twilio(Provider):
    """The provider `twilio`: SMS and WhatsApp messages, and status reports at the same address."""

    settings_model: ClassVar[type[fields.ProviderSettings]] = TwilioSettings

    def __init__(self, settings: TwilioSettings) -> None:
        """Take the auth tokens; each of them verifies."""
        self._secrets = tuple(secret.get_secret_value() for secret in settings.secrets)

    def verify(self, request: Inbound) -> None:
        """Check the type, the signature over address and fields, and the hash of a body that is not a form."""
        if request.content_type not in {FORM, "application/json"}:
            raise Unsupported(f"the content type must be {FORM}")
        is_form = request.content_type == FORM
        pairs = _pairs(request.body) if is_form else ()
        if not (self._is_signed(request, pairs) and (is_form or _is_body_hashed(request))):
            raise BadSignature("the signature is missing or wrong", _why_not(request))

    def parse(self, request: Inbound) -> Parsed:
        """Read the form's message; a status report, or JSON (which never holds a message), has none."""
        if request.content_type != FORM:
            return Parsed()
        form = _unambiguous(_pairs(request.body))
        if _is_status_report(form):
            return Parsed()
        message = fields.checked(_Message, form)
        return Parsed(
            [
                Delivery(
                    senders=(message.sender,),
                    external_id=message.external_id,
                    text=message.text or message.button_text,
                    button=message.button or None,
                    attachments=tuple(_attachments(form, message.media)),
                )
            ]
        )

    def answer(self, accepted: Sequence[Accepted]) -> Answer:
        """Answer without a reply: replies are sent in requests of their own."""
        return Answer(200, "text/xml", EMPTY_TWIML) if accepted else Answer(204, "text/plain", "")

    def persona(self, name: str) -> Persona:
        """Take the name itself."""
        return Persona((name,))

    def sign(self, url: str, item: Item) -> Signed:
        """Sign the address and the form."""
        delivery = fields.only_delivery(item)
        form = {
            "MessageSid": delivery.external_id,
            "From": delivery.senders[0],
            "Body": delivery.text,
            "NumMedia": str(len(delivery.attachments)),
        }
        if delivery.button:
            form |= {"ButtonPayload": delivery.button, "ButtonText": delivery.text}
        for number, media in enumerate(delivery.attachments):
            form |= {f"MediaUrl{number}": media.url or "", f"MediaContentType{number}": media.content_type or ""}
        headers = {
            "Content-Type": FORM,
            "X-Twilio-Signature": signature(self._secrets[0], url, list(form.items())),
        }
        return Signed(headers, urlencode(form, errors="surrogateescape").encode())

    def _is_signed(self, request: Inbound, pairs: Pairs) -> bool:
        given = request.header("x-twilio-signature").encode("utf-8", "replace")
        return any(
            hmac.compare_digest(given, signature(secret, url, pairs).encode())
            for secret in self._secrets
            for url in _spellings(request.url)
        )


def signature(secret: str, url: str, pairs: Pairs) -> str:
    """Sign a form as Twilio does: the address, then each key with each of its values, sorted, each once."""
    signed = url + "".join(key + value for key, value in sorted(set(pairs)))
    # Bytes that are not UTF-8 were read with surrogateescape, and are signed as they came.
    mac = hmac.new(secret.encode("utf-8", "surrogateescape"), signed.encode("utf-8", "surrogateescape"), "sha1")
    return b64encode(mac.digest()).decode()


def _spellings(url: str) -> tuple[str, ...]:
    """Return the address without and with its port: Twilio signs either."""
    found = re.fullmatch(r"(https?)://([^/?#]*?)(:\d*)?([/?#].*)?", url, re.DOTALL)
    if found is None:
        return (url,)
    scheme, host, port, rest = found.groups(default="")
    return f"{scheme}://{host}{rest}", f"{scheme}://{host}{port or f':{DEFAULT_PORTS[scheme]}'}{rest}"


def _why_not(request: Inbound) -> str:
    """Tell the operator why no token verifies: mostly it is the address that Twilio does not know by this name."""
    if not request.header("x-twilio-signature"):
        return "the header X-Twilio-Signature is missing"
    return "no token of the channel gives this signature over this address: is public_url the one that Twilio calls?"


def _is_body_hashed(request: Inbound) -> bool:
    """Compare the body with the hash in the signed address."""
    try:
        [given, *_] = parse_qs(urlsplit(request.url).query, max_num_fields=FIELDS_MAX)["bodySHA256"]
    except (ValueError, KeyError):
        return False
    return hmac.compare_digest(given.encode("utf-8", "replace"), sha256(request.body).hexdigest().encode())


def _pairs(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            body.decode("utf-8", "surrogateescape"),
            keep_blank_values=True,
            errors="surrogateescape",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise BadRequest("body", f"must be a form of at most {FIELDS_MAX} fields") from None


def _unambiguous(pairs: Pairs) -> dict[str, str]:
    """Make a mapping of the form; refuse a field that has two values, since either may be the wrong one."""
    form = dict(pairs)
    if len(form) < len(set(pairs)):
        raise BadRequest("body", "a field is given twice")
    return form


def _is_status_report(form: dict[str, str]) -> bool:
    """Whether this is a report on a message sent earlier: it has a status, and nothing that a user wrote."""
    return not STATUS.isdisjoint(form) and CONTENT.isdisjoint(form)


class _Message(fields.Incoming):
    external_id: fields.ExternalId = Field(alias="MessageSid")
    sender: fields.Sender = Field(alias="From")
    text: fields.Text = Field("", alias="Body")
    button: fields.Button | None = Field(None, alias="ButtonPayload")
    button_text: fields.Text = Field("", alias="ButtonText")
    media: Annotated[int, Field(ge=0, le=fields.ATTACHMENTS_MAX)] = Field(0, alias="NumMedia")


class _Media(fields.Incoming):
    url: fields.Url = Field(alias="MediaUrl")
    content_type: fields.ContentType | None = Field(None, alias="MediaContentType")


def _attachments(form: dict[str, str], count: int) -> Iterator[Attachment]:
    for number in range(count):
        numbered = {name: form[f"{name}{number}"] for name in MEDIA if f"{name}{number}" in form}
        media = fields.checked(_Media, numbered)
        yield Attachment(url=media.url, content_type=media.content_type or None)
