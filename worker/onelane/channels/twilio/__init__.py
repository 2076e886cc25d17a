"""Twilio's messaging webhooks (SMS, MMS, WhatsApp, RCS): forms, signed over the public address and the fields."""

import re
from base64 import b64encode
from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

from onelane.channels import fields
from onelane.channels.provider import Answer, FileRequest, FileSteps, Inbound, Parsed, Persona, Provider, Signed
from onelane.channels.twilio import playing
from onelane.channels.twilio.forms import FIELDS_MAX, FORM, Form
from onelane.channels.twilio.messages import is_read, items
from onelane.channels.twilio.sending import TwilioSender
from onelane.channels.twilio.settings import TwilioSettings
from onelane.channels.twilio.signing import HEADER, is_signed, signature, why_not
from onelane.deliveries import Accepted, Item, Quarantined
from onelane.errors import BadRequest, BadSignature, Unsupported
from onelane.model import Attachment, uuid_or_none

__all__ = ["EMPTY_TWIML", "FIELDS_MAX", "FORM", "Twilio", "TwilioSettings", "signature"]

EMPTY_TWIML = '<?xml version="1.0" encoding="UTF-8"?><Response/>'
ACCOUNT = re.compile(r"/Accounts/(AC[0-9a-f]{32})/")
MEDIA_HOSTS = (".twiliocdn.com", "s3-external-1.amazonaws.com", "s3.amazonaws.com")
"""Where Twilio redirects to. (From memory, not verified.)"""


class Twilio(Provider):
    """The provider `twilio`: messages of users, and statuses of replies at the same address."""

    settings_model: ClassVar[type[fields.ProviderSettings]] = TwilioSettings
    has_statuses: ClassVar[bool] = True
    redelivers: ClassVar[bool] = False
    signed_by: ClassVar[tuple[str, ...]] = ("x-twilio-signature",)
    body_max_bytes: ClassVar[int] = 32 * 2**10

    def __init__(self, settings: TwilioSettings) -> None:
        """Take the auth tokens; each of them verifies."""
        self._settings = settings
        self._secrets = tuple(secret.get_secret_value() for secret in settings.secrets)
        self._account_sid = settings.account_sid
        self._api_key, self._api_secret = settings.api_key, settings.api_secret
        self._base_url = settings.base_url.rstrip("/")

    def verify(self, request: Inbound) -> None:
        """Check the type, the signature over address and fields, and the hash of a body that is not a form."""
        if request.content_type not in {FORM, "application/json"}:
            raise Unsupported(f"the content type must be {FORM}")
        if not is_signed(request, self._secrets):
            raise BadSignature("the signature is missing or wrong", why_not(request, self._secrets))

    def parse(self, request: Inbound) -> Parsed:
        """Read the form: it is a message or a status, or goes into quarantine, since Twilio delivers once."""
        if request.content_type != FORM:
            return Parsed([Quarantined("body: JSON is of no product that is supported")])
        return Parsed(fields.understood(lambda: items(self._form(request), _key(request.url))))

    def answer(self, accepted: Sequence[Accepted]) -> Answer:
        """Answer without a reply: replies are sent in requests of their own."""
        return Answer(200, "text/xml", EMPTY_TWIML) if accepted else Answer(204, "text/plain", "")

    def persona(self, name: str) -> Persona:
        """Take an address as it is, and make a WhatsApp number of another name."""
        return playing.persona(name)

    def sign(self, url: str, item: Item) -> Signed:
        """Sign the address and the form."""
        form, query = playing.form_of(item), playing.query_of(item)
        if self._account_sid:
            form["AccountSid"] = self._account_sid
        headers = {"Content-Type": FORM, HEADER: signature(self._secrets[0], url + query, list(form.items()))}
        return Signed(headers, urlencode(form, errors="surrogateescape").encode(), query)

    def file(self, attachment: Attachment) -> FileSteps:
        """Get the file from the account's API, which redirects to where it lies."""
        url = attachment.url or ""
        if not url.startswith(f"{self._base_url}/"):
            raise BadRequest("attachment", "is not at Twilio: base_url is where its files are")
        return self._steps(url)

    def ways(self, name: str) -> Sequence[Sequence[str]]:
        """Name an address, or what it has behind its kind: ExternalUserId may be that alone."""
        return [(name,), (name.rpartition(":")[2],)]

    @property
    def sender(self) -> TwilioSender | None:
        """Send from the account."""
        return TwilioSender(self._settings, self._account_sid) if self._account_sid else None

    def _steps(self, url: str) -> FileSteps:
        at = urlsplit(self._base_url)
        yield FileRequest(url, (f"{at.scheme}://{at.netloc}", *MEDIA_HOSTS), self._login(url))

    def _form(self, request: Inbound) -> Form:
        form = Form(request.body, is_read)
        if self._account_sid and form.get("AccountSid") not in {"", self._account_sid}:
            raise BadRequest("AccountSid", "is not the channel's account_sid")
        return form

    def _login(self, url: str) -> dict[str, str]:
        """Log in with the API key, else as the account that the address names."""
        if self._api_key and self._api_secret:
            login = f"{self._api_key}:{self._api_secret.get_secret_value()}"
        elif account := ACCOUNT.search(url):
            login = f"{account[1]}:{self._secrets[0]}"
        else:
            return {}
        return {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}


def _key(url: str) -> UUID | None:
    """Read the reply's id out of the address that was given to Twilio with the reply."""
    try:
        [reply] = parse_qs(urlsplit(url).query, max_num_fields=FIELDS_MAX)["reply"]
    except (ValueError, KeyError):
        return None
    return uuid_or_none(reply)
