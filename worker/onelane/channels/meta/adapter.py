"""The adapter: it verifies, reads, answers, and leads to files."""

import hmac
import re
from collections.abc import Sequence
from hashlib import sha256
from itertools import groupby
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from onelane.channels import fields
from onelane.channels.bodies import json_object
from onelane.channels.meta import writing
from onelane.channels.meta.envelope import items_of
from onelane.channels.meta.messages import GROUP
from onelane.channels.meta.sending import MetaSender
from onelane.channels.meta.settings import MetaSettings
from onelane.channels.provider import Answer, FileRequest, FileSteps, Inbound, Parsed, Persona, Provider, Signed
from onelane.deliveries import Accepted, Item
from onelane.errors import BadHandshake, BadRequest, BadSignature, Unsupported
from onelane.model import Attachment

JSON = "application/json"
SIGNATURE = "x-hub-signature-256"
SIGNATURE_FORM = re.compile(r"sha256=[0-9a-f]{64}")
QUERY_FIELDS_MAX = 32
CHALLENGE_FORM = re.compile(r"[A-Za-z0-9_.=+/-]{1,256}")
MEDIA_ID_FORM = re.compile(r"[A-Za-z0-9_-]{1,128}")
FILE_HOSTS = (".fbcdn.net", "lookaside.fbsbx.com")
"""Where files lie, beside the host of `base_url`."""


class Meta(Provider):
    """The provider `meta`: WhatsApp's Cloud API."""

    settings_model: ClassVar[type[fields.ProviderSettings]] = MetaSettings
    has_statuses: ClassVar[bool] = True
    signed_by: ClassVar[tuple[str, ...]] = ("x-hub-signature-256",)

    def __init__(self, settings: MetaSettings) -> None:
        """Take the app's secrets and the tokens."""
        self._settings = settings
        self._secrets = tuple(secret.get_secret_value().encode() for secret in settings.secrets)
        self._verify_tokens = tuple(token.get_secret_value().encode() for token in settings.verify_tokens)

    def handshake(self, request: Inbound) -> Answer:
        """Send the challenge back to who knows a verify token; whoever else asks gets 403 without it."""
        try:
            query = parse_qs(urlsplit(request.url).query, max_num_fields=QUERY_FIELDS_MAX)
            [mode], [token], [challenge] = (query[f"hub.{name}"] for name in ("mode", "verify_token", "challenge"))
        except (ValueError, KeyError):
            raise _no_handshake("hub.mode, hub.verify_token and hub.challenge must be there, each once") from None
        given = token.encode("utf-8", "replace")
        # All are compared, so that the time tells nothing.
        if not sum(hmac.compare_digest(given, known) for known in self._verify_tokens):
            raise _no_handshake("no verify token of the channel is the one that was given")
        if mode != "subscribe" or not CHALLENGE_FORM.fullmatch(challenge):
            raise _no_handshake("the mode is not subscribe, or the challenge is none of Meta's")
        return Answer(200, "text/plain", challenge)

    def verify(self, request: Inbound) -> None:
        """Check the type and the signature over the raw bytes."""
        if request.content_type != JSON:
            raise Unsupported(f"the content type must be {JSON}")
        given = request.header(SIGNATURE)
        if not (SIGNATURE_FORM.fullmatch(given) and self._is_signed(given, request.body)):
            raise BadSignature("the signature is missing or wrong", _why_not(given))

    def parse(self, request: Inbound) -> Parsed:
        """Read the batch."""
        return Parsed(items_of(request.body, self._settings.phone_number_id))

    def answer(self, accepted: Sequence[Accepted]) -> Answer:  # noqa: ARG002 - Meta reads the status alone
        """Answer with nothing: Meta delivers a batch again as a whole, or not at all."""
        return Answer(200, "text/plain", "")

    def persona(self, name: str) -> Persona:
        """Make a phone number and a scoped id of the name. No country has numbers that begin like these."""
        senders = writing.names_of(name)
        return Persona(senders, route={"to": senders[0], "recipient": senders[1]})

    def sign(self, url: str, item: Item) -> Signed:
        """Write a batch of one, and sign it."""
        [signed] = self.sign_all(url, [item])
        return signed

    def sign_all(self, url: str, items: Sequence[Item]) -> list[Signed]:  # noqa: ARG002 - the address is not signed
        """Write one batch: a change for each run of items that go into the same list."""
        number = self._settings.phone_number_id or writing.NUMBER_ID
        runs = groupby(map(writing.written, items), key=lambda one: one.list_name)
        body = writing.batch(number, [list(run) for _, run in runs])
        return [Signed({"Content-Type": JSON, "X-Hub-Signature-256": _signature(self._secrets[0], body)}, body)]

    def file(self, attachment: Attachment) -> FileSteps:
        """Ask for the file's address, which lives five minutes, then for the file."""
        token = self._settings.access_token
        if token is None:
            raise BadRequest("access_token", "is not set: files cannot be fetched")
        if not (attachment.id and MEDIA_ID_FORM.fullmatch(attachment.id)):
            raise BadRequest("attachment", "must have an id of Meta's")
        address = f"{self._settings.base_url.rstrip('/')}/{self._settings.api_version}/{attachment.id}"
        return _steps(address, {"Authorization": f"Bearer {token.get_secret_value()}"})

    def ways(self, name: str) -> Sequence[Sequence[str]]:
        """Name a group by its id alone."""
        return [(name.removeprefix(GROUP),)]

    @property
    def sender(self) -> MetaSender | None:
        """Send with the access token."""
        token = self._settings.access_token
        return MetaSender(self._settings, token) if token else None

    def _is_signed(self, given: str, body: bytes) -> bool:
        return any(hmac.compare_digest(given, _signature(secret, body)) for secret in self._secrets)


def _no_handshake(why: str) -> BadHandshake:
    return BadHandshake("the handshake is refused", why)


def _signature(secret: bytes, body: bytes) -> str:
    return f"sha256={hmac.new(secret, body, sha256).hexdigest()}"


def _why_not(given: str) -> str:
    if not given:
        return "the header X-Hub-Signature-256 is missing"
    return "no secret of the channel gives this signature: are they the secrets of the app that calls?"


def _steps(address: str, headers: dict[str, str]) -> FileSteps:
    parts = urlsplit(address)
    own = parts.netloc if parts.scheme == "https" and not parts.port else f"{parts.scheme}://{parts.netloc}"
    found = yield FileRequest(address, (own,), headers)
    url = json_object(found).get("url")
    if not isinstance(url, str):
        raise BadRequest("url", "is missing in what Meta says of the file")
    yield FileRequest(url, (own, *FILE_HOSTS), headers)
