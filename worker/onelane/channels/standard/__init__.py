"""Standard Webhooks (standardwebhooks.com): JSON, signed with `webhook-id`, `-timestamp` and `-signature`."""

import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, SecretStr
from standardwebhooks import Webhook

from onelane.channels import fields
from onelane.channels.provider import Answer, Inbound, Parsed, Persona, Provider, Signed
from onelane.channels.standard.contents import item_of
from onelane.channels.standard.sending import StandardSender
from onelane.channels.standard.writing import body_of, id_of
from onelane.deliveries import Accepted, Item, Quarantined
from onelane.errors import BadRequest, BadSignature, Unsupported
from onelane.model import JsonObject

SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")
AGE_MAX_S = 300
"""As the library has it."""


def _key(secret: str) -> bytes:
    """Return the key of a secret; raise ValueError if it has none."""
    text = secret.removeprefix("whsec_")
    return b64decode(text + "=" * (-len(text) % 4), validate=True)


def _can_verify(secret: SecretStr) -> SecretStr:
    """Refuse what the library takes for a key, and what verifies nothing."""
    text = secret.get_secret_value()
    if text.startswith("v1,"):
        raise ValueError("must begin with whsec_, without v1, before it")
    if text.startswith(("whpk_", "whsk_")):
        raise ValueError("must be a whsec_ secret: signatures by key pairs are not understood")
    try:
        key = _key(text)
    except ValueError:
        raise ValueError("must be base64 (A-Z a-z 0-9 + /), with or without whsec_ before it") from None
    if key.startswith(fields.PLACEHOLDER.encode()):
        raise ValueError("is the example's own: put the provider's in its place")
    if len(key) < fields.SECRET_MIN:
        raise ValueError(f"must be base64 of at least {fields.SECRET_MIN} bytes")
    return secret


class SignedSettings(fields.ProviderSettings):
    """What Standard Webhooks are signed with."""

    secrets: Annotated[tuple[Annotated[fields.Secret, AfterValidator(_can_verify)], ...], fields.A_FEW]
    """base64, with or without `whsec_` before it. The newest signs replies."""


class StandardSettings(SignedSettings):
    """What `standard` needs to know."""

    reply_url: fields.Url | None = None
    """Where replies are posted; without it none is sent."""


class Standard(Provider):
    """The provider `standard`: any service that signs by the Standard Webhooks specification."""

    settings_model: ClassVar[type[fields.ProviderSettings]] = StandardSettings
    has_statuses: ClassVar[bool] = True
    signed_by: ClassVar[tuple[str, ...]] = SIGNED

    def __init__(self, settings: StandardSettings) -> None:
        """Take the signing secrets; each of them verifies."""
        self._settings = settings
        self._webhooks = tuple(Webhook(secret.get_secret_value()) for secret in settings.secrets)

    def verify(self, request: Inbound) -> None:
        """Check the type, then the signature over the raw bytes."""
        if not _is_json(request.content_type):
            raise Unsupported("the content type must be application/json")
        if not any(self._signatures(request)):
            raise BadSignature("the signature is missing, wrong or too old", _why_not(request))

    def _signatures(self, request: Inbound) -> Iterator[bool]:
        """Tell of each secret whether it verifies; the library knows texts alone."""
        if _is_utf8(request.body):
            return (_verifies(webhook, request) for webhook in self._webhooks)
        return (_verifies_bytes(_key(secret.get_secret_value()), request) for secret in self._settings.secrets)

    def parse(self, request: Inbound) -> Parsed:
        """Read what the body says; the answer says why it goes into quarantine."""
        try:
            return Parsed([item_of(request.header("webhook-id"), request.body)])
        except BadRequest as problem:
            reason = str(problem)
            return Parsed([Quarantined(reason)], _answer({"quarantined": reason, "field": problem.field}))

    def answer(self, accepted: Sequence[Accepted]) -> Answer:
        """Return what became of a message: its id, its user, its number."""
        return _answer(accepted[0].model_dump(mode="json", exclude={"is_waiting"}) if accepted else {})

    def persona(self, name: str) -> Persona:
        """Take the name itself."""
        return Persona((name,))

    def sign(self, url: str, item: Item) -> Signed:  # noqa: ARG002 - the address is not signed here
        """Sign id, time and body, as of now."""
        now, external_id, body = datetime.now(UTC), id_of(item), json.dumps(body_of(item))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": external_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhooks[0].sign(external_id, now, body),
        }
        return Signed(headers, body.encode())

    @property
    def sender(self) -> StandardSender | None:
        """Post to `reply_url`."""
        url, secret = self._settings.reply_url, self._settings.secrets[0].get_secret_value()
        return StandardSender(url, secret) if url else None


def _answer(content: JsonObject) -> Answer:
    return Answer(202, "application/json", json.dumps(content))


def _why_not(request: Inbound) -> str:
    """Tell the operator why no secret verifies: the time alone may be wrong."""
    if not all(request.header(name) for name in SIGNED):
        return f"one of the headers {', '.join(SIGNED)} is missing"
    if not _is_recent(request):
        return "its time is more than five minutes from ours, or no time"
    return "no secret of the channel gives this signature"


def _is_recent(request: Inbound) -> bool:
    try:
        age_s = datetime.now(UTC).timestamp() - float(request.header("webhook-timestamp"))
    except ValueError:
        return False
    return abs(age_s) <= AGE_MAX_S


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _verifies(webhook: Webhook, request: Inbound) -> bool:
    try:
        webhook.verify(request.body, dict(request.headers), json_parse=False)
    except Exception:  # noqa: BLE001 - hostile headers raise half a dozen types; all of them mean "not signed"
        return False
    return True


def _verifies_bytes(key: bytes, request: Inbound) -> bool:
    head = f"{request.header('webhook-id')}.{request.header('webhook-timestamp')}."
    signature = b"v1," + b64encode(hmac.digest(key, head.encode(errors="replace") + request.body, "sha256"))
    given = request.header("webhook-signature").encode(errors="replace").split(b" ")
    return _is_recent(request) and any(hmac.compare_digest(signature, one) for one in given)
