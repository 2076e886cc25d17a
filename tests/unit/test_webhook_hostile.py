"""Whatever the internet sends, signed or not, is refused or accepted; it is never an error of ours."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote, urlencode
from uuid import UUID

from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st

from onelane.bootstrap import Services
from onelane.channels import providers
from onelane.channels.twilio import FORM, signature
from onelane.config import Channel, Settings
from onelane.deliveries import Accepted, Delivery
from onelane_web import create_app
from tests.in_memory import receiving

KEY = b"the key of the demo channel, long"
ID = UUID(int=1)


class StrictIntake:
    """Takes only what Postgres could store."""

    def outcomes(self, _channel: str, deliveries: Sequence[Delivery], _note: object, **_how: object) -> list[Accepted]:
        for one in deliveries:
            media = [part for file in one.attachments for part in (file.url or "", file.content_type or "")]
            stored = "".join([*one.senders, one.external_id, one.text, one.button or "", *media])
            assert b"\x00" not in stored.encode()
            assert one.sent_at is None or one.sent_at.utcoffset() == timedelta(0)
        return [Accepted(message_id=ID, user_id=ID, seq=1, duplicate=False, is_waiting=True) for _ in deliveries]


@cache
def client() -> FlaskClient:
    demo = Channel(provider="standard", secrets=(base64.b64encode(KEY).decode(),))
    support = Channel(provider="twilio", secrets=("twilio-auth-token",), public_url="https://here")
    channels = {"demo": demo, "support": support}
    settings = Settings(database_url="postgresql://", redis_url="redis://", channels=channels, proxy_hops=1)
    by_channel = providers(channels)
    services = SimpleNamespace(
        settings=settings,
        providers=by_channel,
        database=None,
        receiving=receiving(by_channel, StrictIntake()),
        lanes=SimpleNamespace(client=SimpleNamespace(set=lambda *_, **__: None)),
    )
    return create_app(cast("Services", services)).test_client()


def status(path: str, data: bytes, headers: Mapping[str, str]) -> int:
    return client().post(path, data=data, headers=headers).status_code


def signed(body: bytes) -> int:
    """Post `body` to the demo channel with the signature it must have."""
    stamp = str(int(time.time()))
    mac = hmac.new(KEY, b"m1." + stamp.encode() + b"." + body, hashlib.sha256)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": "m1",
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(mac.digest()).decode()}",
    }
    return status("/webhooks/demo", body, headers)


HEADER = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=60)
NAMES = [
    "Content-Type",
    "Content-Length",
    "Host",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Twilio-Signature",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
]
HEADERS = st.dictionaries(st.sampled_from(NAMES), HEADER)
TYPES = st.sampled_from(["application/json", FORM, "multipart/form-data; boundary=x", ""])
ANY_TEXT = st.text(st.characters(), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["user", "text", "button", "sent_at", "attachments", "webhook-id", "external_id"]
LIKELY = st.fixed_dictionaries({"user": st.just("alice"), "text": st.just("hello")})
BODIES = st.tuples(LIKELY, st.dictionaries(st.sampled_from(FIELDS), JSON | st.datetimes().map(str))).map(
    lambda two: two[0] | two[1]
)
FORM_FIELDS = ["MessageSid", "From", "Body", "NumMedia", "MediaUrl0", "MessageStatus", "ButtonPayload", "x"]


@given(st.sampled_from(["demo", "support", "nobody"]), st.binary(max_size=200), HEADERS, TYPES)
def test_no_bytes_and_no_headers_are_an_error_of_ours(
    channel: str, data: bytes, headers: dict[str, str], content_type: str
) -> None:
    assert 400 <= status(f"/webhooks/{channel}", data, {"Content-Type": content_type} | headers) < 500


@given(st.text(), st.text())
def test_no_address_is_an_error_of_ours(name: str, query: str) -> None:
    path = f"/webhooks/{quote(name, safe='', errors='surrogatepass')}?{quote(query, errors='surrogatepass')}"
    assert status(path, b"", {}) in {401, 404, 415}


@given(BODIES)
@example({"user": "alice", "text": "hello", "sent_at": "9999-12-31T23:59:59-14:00"})
@example({"user": "alice", "text": "hello", "sent_at": "2026-01-16T20:39:06+01:00:30.5"})
def test_no_signed_object_is_an_error_of_ours(body: dict[str, Any]) -> None:
    assert signed(json.dumps(body).encode()) == 202


@given(JSON.map(json.dumps).map(str.encode) | st.binary(max_size=100))
@example(b"[" * 200_000)
@example(b'{"user": "a", "text": ' + b'{"a":' * 100_000)
@example(b'{"user": "alice", "text": "hello", "n": 1e999999999}')
def test_no_signed_body_is_an_error_of_ours(body: bytes) -> None:
    assert signed(body) == 202


@given(st.lists(st.tuples(st.sampled_from(FORM_FIELDS), ANY_TEXT | st.integers().map(str)), max_size=12))
def test_no_signed_form_is_an_error_of_ours(pairs: list[tuple[str, str]]) -> None:
    body = urlencode(pairs, errors="surrogatepass").encode()
    escaped = [(key, value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")) for key, value in pairs]
    headers = {
        "Content-Type": FORM,
        "X-Twilio-Signature": signature("twilio-auth-token", "https://here/webhooks/support", escaped),
    }
    assert status("/webhooks/support", body, headers) in {200, 204}
