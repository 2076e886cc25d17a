"""Slack: events, buttons and forms, slash commands, all signed alike and posted to one address."""

import hmac
import re
import time
from collections.abc import Sequence
from typing import ClassVar, Final
from urllib.parse import urlencode, urlsplit

from onelane.channels import fields
from onelane.channels.bodies import json_object
from onelane.channels.provider import Answer, FileRequest, FileSteps, Inbound, Parsed, Persona, Provider, Signed
from onelane.channels.slack import events, interactions
from onelane.channels.slack.playing import FORM, JSON, persona_of, played
from onelane.channels.slack.sending import SlackSender
from onelane.channels.slack.settings import BASE_URL, SlackSettings
from onelane.deliveries import Accepted, Item, Quarantined
from onelane.errors import BadRequest, BadSignature, Unsupported
from onelane.model import Attachment, JsonObject

SIGNATURE: Final = "x-slack-signature"
TIMESTAMP: Final = "x-slack-request-timestamp"
AGE_MAX_S: Final = 300
CHALLENGE: Final = re.compile("[ -~]{1,1024}")
FILE_HOST: Final = "files.slack.com"
"""Alone: a token without rights is led to a page for people, at another host of Slack's, and that is no file."""


class Slack(Provider):
    """The provider `slack`: one app, in one workspace or many."""

    settings_model: ClassVar[type[fields.ProviderSettings]] = SlackSettings
    signed_by: ClassVar[tuple[str, ...]] = (SIGNATURE, TIMESTAMP)
    body_max_bytes: ClassVar[int] = 2**20

    def __init__(self, settings: SlackSettings) -> None:
        """Take the signing secrets; each of them verifies."""
        self._secrets = tuple(secret.get_secret_value().encode() for secret in settings.secrets)
        self._settings = settings

    def verify(self, request: Inbound) -> None:
        """Check the type, the time, then the signature over time and raw bytes."""
        if request.content_type not in {JSON, FORM}:
            raise Unsupported(f"the content type must be {JSON} or {FORM}")
        if why := self._why_not(request):
            raise BadSignature("the signature is missing, wrong or too old", why)

    def _why_not(self, request: Inbound) -> str | None:
        """Tell the operator why no secret verifies; what is cheap to see comes first."""
        given, stamp = request.header(SIGNATURE), request.header(TIMESTAMP)
        if not (given and stamp):
            return f"one of the headers {SIGNATURE}, {TIMESTAMP} is missing"
        if not (re.fullmatch("[0-9]{1,12}", stamp) and abs(time.time() - int(stamp)) <= AGE_MAX_S):
            return "its time is more than five minutes from ours, or no time"
        mac = given.encode("utf-8", "replace")
        if not any(hmac.compare_digest(mac, signature(secret, stamp, request.body)) for secret in self._secrets):
            return "no secret of the channel gives this signature"
        return None

    def parse(self, request: Inbound) -> Parsed:
        """Read one event, or the form of an interaction or a command."""
        if request.content_type == FORM:
            return Parsed(fields.understood(lambda: interactions.read(request.body)))
        try:
            body = json_object(request.body)
        except BadRequest as problem:
            return Parsed([Quarantined(str(problem))])
        if body.get("type") == "url_verification":
            return _challenged(body)
        return Parsed(fields.understood(lambda: [events.read(body, self._settings.app_id)]))

    def answer(self, accepted: Sequence[Accepted]) -> Answer:  # noqa: ARG002 - an empty answer whatever came
        """Answer without content: it would be shown in the channel or change the form."""
        return Answer(200, "text/plain", "")

    def persona(self, name: str) -> Persona:
        """Name somebody in a direct channel with the bot."""
        return persona_of(name)

    def sign(self, url: str, item: Item) -> Signed:  # noqa: ARG002 - the address is not signed here
        """Sign time and body, as of now."""
        content_type, text = played(fields.only_delivery(item), self._settings.app_id)
        body, stamp = text.encode(), str(int(time.time()))
        mac = signature(self._secrets[0], stamp, body).decode()
        headers = {"Content-Type": content_type, "X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": mac}
        return Signed(headers, body)

    def file(self, attachment: Attachment) -> FileSteps:
        """Ask for the file's address where Slack did not give it, then for the file, with the app's token."""
        if self._settings.bot_token is None:
            raise BadRequest("attachment", "cannot be fetched: the channel has no bot_token")
        if attachment.url is None and attachment.id is None:
            raise BadRequest("attachment", "is no file of Slack")
        return self._steps(attachment, self._settings.bot_token.get_secret_value())

    def ways(self, name: str) -> Sequence[Sequence[str]]:
        """Name the team and the person, or the channel and the thread."""
        return [name.split(":")]

    @property
    def sender(self) -> SlackSender | None:
        """Send with the app's token."""
        token = self._settings.bot_token
        return SlackSender(self._settings, token) if token else None

    def _steps(self, attachment: Attachment, token: str) -> FileSteps:
        headers, base = {"Authorization": f"Bearer {token}"}, self._settings.base_url
        home = "{0.scheme}://{0.netloc}".format(urlsplit(base))
        url = attachment.url
        if url is None:
            info = yield FileRequest(f"{base}/files.info?{urlencode({'file': attachment.id})}", (home,), headers)
            url = _address_in(info)
        yield FileRequest(url, (FILE_HOST,) if base == BASE_URL else (FILE_HOST, home), headers)


def signature(secret: bytes, stamp: str, body: bytes) -> bytes:
    """Sign as Slack does, version 0."""
    return b"v0=" + hmac.new(secret, b"v0:" + stamp.encode() + b":" + body, "sha256").hexdigest().encode()


def _challenged(body: JsonObject) -> Parsed:
    """Return the challenge with which Slack makes sure whose address this is."""
    challenge = body.get("challenge")
    if isinstance(challenge, str) and CHALLENGE.fullmatch(challenge):
        return Parsed(answer=Answer(200, "text/plain", challenge))
    return Parsed([Quarantined("challenge: must be 1 to 1024 printable ASCII characters")])


class _File(fields.Incoming):
    url_private: fields.Url


class _FileInfo(fields.Incoming):
    file: _File


def _address_in(info: bytes) -> str:
    try:
        return fields.checked(_FileInfo, json_object(info)).file.url_private
    except BadRequest:
        raise BadRequest("attachment", "cannot be fetched: Slack does not say where it is") from None
