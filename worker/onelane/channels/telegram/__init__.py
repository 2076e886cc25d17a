"""Telegram's Bot API: updates in JSON, with a secret of ours in a header.

An update's message is named by its chat and number, since edits, reactions and answers name it so; every other line by
`update_id`.
"""

import hmac
import json
import re
from collections.abc import Sequence
from typing import Annotated, ClassVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import AfterValidator, Field, SecretStr

from onelane.channels import fields
from onelane.channels.bodies import json_object, repaired
from onelane.channels.provider import Answer, FileRequest, FileSteps, Inbound, Parsed, Persona, Provider, Signed
from onelane.channels.telegram.chats import Number, parts_of
from onelane.channels.telegram.composing import composed, number_of
from onelane.channels.telegram.content import FILE_ID_MAX
from onelane.channels.telegram.kinds import IGNORED, READERS
from onelane.channels.telegram.sending import TelegramSender
from onelane.channels.telegram.update import Bot, Update
from onelane.deliveries import Accepted, Delivery, Ignored, Item, Quarantined
from onelane.errors import BadRequest, BadSignature, Unsupported
from onelane.model import Attachment, JsonObject

JSON = "application/json"
TOKEN_HEADER = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - the name of a header


def _can_be_set(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", secret.get_secret_value()):
        raise ValueError("must be at most 256 of A-Z a-z 0-9 _ and -")
    return secret


def _is_token(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"\d{1,16}:[A-Za-z0-9_-]{16,256}", token.get_secret_value()):
        raise ValueError("must be a bot's token, as BotFather gives it: 123456:ABC…")
    return token


def _is_address(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9._-]+(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?", text):
        raise ValueError("must be http:// or https://, a host, and perhaps a port and a path")
    return text.rstrip("/")


class TelegramSettings(fields.ProviderSettings):
    """What `telegram` needs to know."""

    secrets: Annotated[tuple[Annotated[fields.Secret, AfterValidator(_can_be_set)], ...], fields.A_FEW]
    """The values that setWebhook was given as secret_token."""
    bot_token: Annotated[fields.Secret, AfterValidator(_is_token)] | None = None
    """It sends, and fetches files: it is part of every address."""
    bot_username: Annotated[str, Field(pattern=r"^@?\w{1,64}$")] | None = None
    """By which groups call the bot."""
    base_url: Annotated[str, AfterValidator(_is_address)] = "https://api.telegram.org"
    """Of another one where a Bot API server of one's own runs."""


class Telegram(Provider):
    """The provider `telegram`: one bot, in private chats, groups, topics and business chats."""

    settings_model: ClassVar[type[fields.ProviderSettings]] = TelegramSettings
    signed_by: ClassVar[tuple[str, ...]] = ("x-telegram-bot-api-secret-token",)
    body_max_bytes: ClassVar[int] = 2**20

    def __init__(self, settings: TelegramSettings) -> None:
        """Take the secrets; each of them verifies."""
        self._secrets = tuple(secret.get_secret_value() for secret in settings.secrets)
        self._token = settings.bot_token
        self._base_url = settings.base_url
        self._bot = Bot(
            int(settings.bot_token.get_secret_value().partition(":")[0]) if settings.bot_token else None,
            (settings.bot_username or "").removeprefix("@").lower(),
        )

    def verify(self, request: Inbound) -> None:
        """Compare the header with each secret, in constant time."""
        given = request.header(TOKEN_HEADER)
        if not given:
            raise BadSignature("the secret token is missing", f"the header {TOKEN_HEADER} is missing")
        if request.content_type != JSON:
            raise Unsupported(f"the content type must be {JSON}")
        # All are compared: how long it takes tells nothing of which one it was.
        found = [hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode()) for secret in self._secrets]
        if not any(found):
            raise BadSignature("the secret token is wrong", "no secret of the channel is the one in the header")

    def parse(self, request: Inbound) -> Parsed:
        """Read the one update; an album comes as several."""
        try:
            body, repairs = repaired(json_object(request.body))
            kind, update = self._update(body)
        except BadRequest as problem:
            return Parsed([Quarantined(str(problem))])
        if kind in IGNORED:
            return Parsed([Ignored(kind)])
        try:
            items: list[Item] = list(READERS[kind](update))
        except BadRequest as problem:
            return Parsed([Quarantined(f"{kind}.{problem}")])
        return Parsed([_marked(item, repairs) for item in items])

    def answer(self, accepted: Sequence[Accepted]) -> Answer:  # noqa: ARG002 - an answer could call a method
        """Answer without a body: Telegram would take one for a call of its API."""
        return Answer(200, "text/plain", "")

    def persona(self, name: str) -> Persona:
        """Give the name a number, as Telegram gives its users."""
        number = number_of(name)
        return Persona((str(number),), route={"chat_id": number})

    def sign(self, url: str, item: Item) -> Signed:  # noqa: ARG002 - the address is not signed
        """Make the update, and put the newest secret beside it."""
        headers = {"Content-Type": JSON, TOKEN_HEADER: self._secrets[0]}
        return Signed(headers, json.dumps(composed(item)).encode())

    def file(self, attachment: Attachment) -> FileSteps:
        """Ask where the file is, then get it from there: for an hour, and up to 20 MB."""
        if self._token is None:
            raise BadRequest("attachment", "cannot be fetched: the channel has no bot_token")
        if not attachment.id or len(attachment.id) > FILE_ID_MAX:
            raise BadRequest("attachment", "has no id of a file")
        return self._steps(attachment.id, self._token.get_secret_value())

    def ways(self, name: str) -> Sequence[Sequence[str]]:
        """Name what a conversation's name is made of."""
        return [parts_of(name)]

    @property
    def sender(self) -> TelegramSender | None:
        """Send with the bot's token."""
        return TelegramSender(self._base_url, self._token) if self._token else None

    def _steps(self, file_id: str, token: str) -> FileSteps:
        address = urlsplit(self._base_url)
        hosts = (address.netloc if address.scheme == "https" else f"{address.scheme}://{address.netloc}",)
        query = urlencode({"file_id": file_id})
        found = yield FileRequest(f"{self._base_url}/bot{token}/getFile?{query}", hosts)
        yield FileRequest(f"{self._base_url}/file/bot{token}/{quote(_file_path(found))}", hosts)

    def _update(self, body: JsonObject) -> tuple[str, Update]:
        number = fields.checked(_Numbered, body).update_id
        kinds = [kind for kind in body if kind in READERS or kind in IGNORED]
        if len(kinds) != 1:
            raise BadRequest("body", "must have one kind of update that is known here")
        content = body[kinds[0]]
        if not isinstance(content, dict):
            raise BadRequest(kinds[0], "must be a JSON object")
        return kinds[0], Update(number, content, self._bot)


class _Numbered(fields.Incoming):
    update_id: Annotated[Number, Field(ge=0)]


class _Found(fields.Incoming):
    file_path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-][^\\?#]{0,1023}$")]


def _file_path(body: bytes) -> str:
    """Read where a file is, below the bot's own address."""
    result = json_object(body).get("result")
    path = fields.checked(_Found, result if isinstance(result, dict) else {}).file_path
    if ".." in path.split("/"):
        raise BadRequest("file_path", "must be below the bot's address")
    return path


def _marked(item: Item, repairs: tuple[str, ...]) -> Item:
    return item.model_copy(update={"repairs": repairs}) if repairs and isinstance(item, Delivery) else item
