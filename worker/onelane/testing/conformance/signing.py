"""Sign a request as its provider does, with its first secret: by HMAC alone, and by nothing of our adapters."""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl

from onelane.channels import Inbound
from onelane.testing.conformance.case import FORM

Sign = Callable[[Inbound, str, int], Inbound]
"""Takes the request, the secret, and the time in seconds; returns the request with its signature."""


def signed(provider: str, request: Inbound, secret: str, now: int) -> Inbound:
    """Sign a request as of `now`."""
    return SIGNS[provider](request, secret, now)


def _meta(request: Inbound, secret: str, _now: int) -> Inbound:
    mac = hmac.new(secret.encode(), request.body, "sha256").hexdigest()
    return _with(request, {"x-hub-signature-256": f"sha256={mac}"})


def _slack(request: Inbound, secret: str, now: int) -> Inbound:
    mac = hmac.new(secret.encode(), f"v0:{now}:".encode() + request.body, "sha256").hexdigest()
    return _with(request, {"x-slack-request-timestamp": str(now), "x-slack-signature": f"v0={mac}"})


def _standard(request: Inbound, secret: str, now: int) -> Inbound:
    name = request.header("webhook-id") or "msg_1"
    key = b64decode(secret.removeprefix("whsec_"))
    mac = b64encode(hmac.digest(key, f"{name}.{now}.".encode() + request.body, "sha256")).decode()
    return _with(request, {"webhook-id": name, "webhook-timestamp": str(now), "webhook-signature": f"v1,{mac}"})


def _telegram(request: Inbound, secret: str, _now: int) -> Inbound:
    return _with(request, {"x-telegram-bot-api-secret-token": secret})


def _twilio(request: Inbound, secret: str, _now: int) -> Inbound:
    """Sign the address and the form's fields, sorted; of another body, its hash in the address."""
    fields: set[tuple[str, str]] = set()
    if request.content_type == FORM:
        fields.update(parse_qsl(request.body.decode(), keep_blank_values=True, errors="surrogateescape"))
    else:
        mark = "&" if "?" in request.url else "?"
        request = replace(request, url=f"{request.url}{mark}bodySHA256={sha256(request.body).hexdigest()}")
    content = request.url + "".join(name + value for name, value in sorted(fields))
    mac = hmac.digest(secret.encode(), content.encode(errors="surrogateescape"), "sha1")
    return _with(request, {"x-twilio-signature": b64encode(mac).decode()})


def _with(request: Inbound, headers: Mapping[str, str]) -> Inbound:
    return replace(request, headers={**request.headers, **headers})


SIGNS: Final[Mapping[str, Sign]] = {
    "meta": _meta,
    "slack": _slack,
    "standard": _standard,
    "telegram": _telegram,
    "twilio": _twilio,
}
PROOFS: Final[Mapping[str, str]] = {
    "meta": "x-hub-signature-256",
    "slack": "x-slack-signature",
    "standard": "webhook-signature",
    "telegram": "x-telegram-bot-api-secret-token",
    "twilio": "x-twilio-signature",
}
"""The header that proves who sent a request."""
TIMED: Final = frozenset({"slack", "standard"})
"""Providers whose signature has a time: an old one is no proof."""
UNSIGNED_BODIES: Final = frozenset({"telegram"})
"""Providers that sign no body: the header is the secret itself."""
