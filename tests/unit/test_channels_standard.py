import base64
import hashlib
import hmac
import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelane.channels import Inbound, provider_of
from onelane.channels.fields import ATTACHMENTS_MAX, TEXT_MAX
from onelane.channels.standard import Standard
from onelane.config import Channel
from onelane.deliveries import Delivery, IdentityChange, Item, Kind, Quarantined, Status
from onelane.errors import BadSignature, Unsupported
from onelane.model import Attachment, AttachmentKind, Author

KEY, OLD_KEY = b"a key of enough bytes for anyone", b"the key from before the rotation"
SECRET, OLD_SECRET = (f"whsec_{base64.b64encode(key).decode()}" for key in (KEY, OLD_KEY))
STANDARD = provider_of(Channel(provider="standard", secrets=(SECRET, OLD_SECRET)))
HELLO = {"user": "alice", "text": "hello"}


def posted(
    body: Any,
    *,
    key: bytes = KEY,
    message_id: str = "m1",
    at: float | None = None,
    content_type: str = "application/json",
) -> Inbound:
    """Sign by the specification, not with the library that verifies."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    stamp = str(int(time.time() if at is None else at))
    mac = hmac.new(key, f"{message_id}.{stamp}.".encode() + raw, hashlib.sha256)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(mac.digest()).decode()}",
    }
    return Inbound("http://here/webhooks/demo", headers, content_type, raw)


def parsed(body: Any, **how: Any) -> Delivery:
    request = posted(body, **how)
    STANDARD.verify(request)
    [delivery] = STANDARD.parse(request).deliveries
    return delivery


def refusal(body: Any, **how: Any) -> str:
    """Return why a signed body goes into quarantine; the answer says so too."""
    request = posted(body, **how)
    STANDARD.verify(request)
    parsed = STANDARD.parse(request)
    [quarantined] = parsed.items
    assert isinstance(quarantined, Quarantined)
    assert parsed.answer is not None
    assert parsed.answer.status == 202
    assert json.loads(parsed.answer.body)["quarantined"] == quarantined.reason
    return quarantined.reason


def test_the_old_secret_still_verifies_during_a_rotation() -> None:
    STANDARD.verify(posted(HELLO, key=OLD_KEY))


def test_one_of_several_signatures_is_enough() -> None:
    request = posted(HELLO)
    both = f"v1,{'A' * 43}= {request.headers['webhook-signature']}"
    STANDARD.verify(replace(request, headers={**request.headers, "webhook-signature": both}))


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "m2"},
        {"webhook-id": ""},
        {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "1e400"},
        {"webhook-timestamp": "yesterday"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,é"},
        {"webhook-signature": "v1,AAA"},
        {"webhook-signature": "v2,AAAA"},
        {"webhook-signature": ""},
    ],
    ids=str,
)
def test_a_request_with_a_changed_header_is_not_signed(change: dict[str, str]) -> None:
    request = posted(HELLO)
    with pytest.raises(BadSignature):
        STANDARD.verify(replace(request, headers={**request.headers, **change}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"webhook-id": ""}, "one of the headers webhook-id, webhook-timestamp, webhook-signature is missing"),
        ({"webhook-timestamp": "1"}, "its time is more than five minutes from ours, or no time"),
        ({"webhook-timestamp": "nan"}, "its time is more than five minutes from ours, or no time"),
        ({"webhook-timestamp": "today"}, "its time is more than five minutes from ours, or no time"),
        ({"webhook-signature": "v1,AAAA"}, "no secret of the channel gives this signature"),
    ],
)
def test_the_operator_learns_whether_time_or_signature_was_wrong(change: dict[str, str], why: str) -> None:
    request = posted(HELLO)
    with pytest.raises(BadSignature) as refused:
        STANDARD.verify(replace(request, headers={**request.headers, **change}))
    assert (refused.value.why, str(refused.value)) == (why, "the signature is missing, wrong or too old")


def test_a_changed_body_is_not_signed() -> None:
    request = posted(HELLO)
    with pytest.raises(BadSignature):
        STANDARD.verify(Inbound(request.url, request.headers, request.content_type, request.body + b" "))


@pytest.mark.parametrize("off_s", [-400, 400])
def test_a_signature_of_another_time_is_refused(off_s: float) -> None:
    with pytest.raises(BadSignature):
        STANDARD.verify(posted(HELLO, at=time.time() + off_s))


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "x/y+json"])
def test_another_content_type_is_unsupported(content_type: str) -> None:
    with pytest.raises(Unsupported):
        STANDARD.verify(posted(HELLO, content_type=content_type))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text": "hello"}, "user"),
        ({**HELLO, "user": ""}, "user"),
        ({**HELLO, "user": " \n"}, "user"),
        ({**HELLO, "user": "x" * 257}, "user"),
        ({**HELLO, "user": 7}, "user"),
        ({"user": "alice"}, "text"),
        ({"user": "alice", "text": ""}, "text"),
        ({"user": "alice", "text": None}, "text"),
        ({**HELLO, "button": "b" * 257}, "button"),
        ({**HELLO, "sent_at": "2026-01-16T20:39:06"}, "sent_at"),
        ({**HELLO, "sent_at": 1_768_595_946}, "sent_at"),
        ({**HELLO, "sent_at": "1768595946"}, "sent_at"),
        ({**HELLO, "sent_at": "0001-01-01T00:00:00+14:00"}, "sent_at"),
        ({**HELLO, "attachments": {}}, "attachments"),
        ({**HELLO, "attachments": [{"url": "https://a/"}] * (ATTACHMENTS_MAX + 1)}, "attachments"),
        ({**HELLO, "attachments": [{"url": "javascript:alert(1)"}]}, "attachments.0.url"),
        ({**HELLO, "user": "a\x00lice"}, "user"),
        ({**HELLO, "senders": ["a", "b\ud800"]}, "senders"),
        ({**HELLO, "type": "carrier pigeon"}, "type"),
        ({**HELLO, "type": "event"}, "event"),
        ({**HELLO, "event": "no word"}, "event"),
        ({"type": "identity", "user": "alice"}, "adds"),
        ({"type": "status", "provider_id": "r1", "state": "lost"}, "state"),
        (["a", "list"], "body"),
        (b"", "body"),
        (b"{", "body"),
        (b"\xef\xbb\xbf{}", "body"),
        (b'{"user": "a", "user": "b", "text": "c"}', "body"),
        (b'{"user": "alice", "text": "hello", "x": NaN}', "body"),
        (b'{"user": "alice", "text": "hello", "x": ' + b"9" * 5_000 + b"}", "body"),
        (b"[" * 100_000, "body"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_that_cannot_be_understood_goes_into_quarantine_by_its_field(body: Any, field: str) -> None:
    assert refusal(body).startswith(f"{field}: ")


NO_TEXT = b'{"user": "alice", "text": "caf\xe9"}'


def test_signed_bytes_that_are_no_text_go_into_quarantine() -> None:
    for key in (KEY, OLD_KEY):
        assert refusal(NO_TEXT, key=key).startswith("body: must be valid JSON: UTF-8")


@pytest.mark.parametrize(
    "wrong",
    [posted(NO_TEXT, key=b"another key"), posted(NO_TEXT, at=1), replace(posted(NO_TEXT), body=NO_TEXT + b" ")],
    ids=["key", "time", "body"],
)
def test_bytes_that_are_no_text_must_be_signed_too(wrong: Inbound) -> None:
    with pytest.raises(BadSignature):
        STANDARD.verify(wrong)


@given(st.text())
def test_no_signature_of_bytes_that_are_no_text_is_an_error_of_ours(signature: str) -> None:
    request = posted(NO_TEXT)
    with pytest.raises(BadSignature):
        STANDARD.verify(replace(request, headers={**request.headers, "webhook-signature": signature}))


def test_a_field_whose_name_has_a_nul_is_no_other_field() -> None:
    delivery = parsed({**HELLO, "us\0er": "bob"})
    assert (delivery.senders, delivery.repairs) == (("alice",), ("nul",))
    assert refusal({"us\0er": "alice", "text": "hello"}).startswith("user: ")


def test_a_text_that_is_too_long_is_cut_and_marked() -> None:
    delivery = parsed({**HELLO, "text": "x" * (TEXT_MAX + 1)})
    assert (len(delivery.text), delivery.repairs) == (TEXT_MAX, ("cut",))


@pytest.mark.parametrize("message_id", ["x" * 257, "a b", "é"], ids=["long", "space", "accent"])
def test_an_id_that_could_not_be_stored_is_not_understood(message_id: str) -> None:
    assert refusal(HELLO, message_id=message_id).startswith("webhook-id: ")


def test_a_refusal_never_repeats_what_was_sent() -> None:
    assert "0612345678" not in refusal({"user": "0612345678" * 30, "text": "secret"})


@pytest.mark.parametrize("body", [{"button": "b"}, {"text": "", "attachments": [{"url": "https://a/b"}]}])
def test_a_button_or_an_attachment_needs_no_text(body: Any) -> None:
    assert parsed({"user": "alice", **body}).text == ""


def test_the_sender_is_not_changed() -> None:
    assert parsed({**HELLO, "user": " Alice "}).senders[0] == " Alice "


LINE = Delivery(senders=("alice",), external_id="m1", text="hi")
THEN = datetime(2026, 1, 16, tzinfo=UTC)
PLAYED = [
    LINE,
    LINE.model_copy(update={"senders": ("alice", "a-2"), "quoted": "m0", "sent_at": THEN}),
    LINE.model_copy(
        update={
            "conversation": "team",
            "author": Author(id="alice", name="Alice"),
            "mentioned": True,
            "route": {"a": 1},
        }
    ),
    LINE.model_copy(update={"text": "", "parts": {"location": {"latitude": 1.5, "longitude": 2}}}),
    LINE.model_copy(update={"attachments": (Attachment(url="https://a/1", kind=AttachmentKind.VOICE, size=7),)}),
    LINE.model_copy(update={"kind": Kind.EVENT, "event": "edited", "quoted": "m0"}),
    LINE.model_copy(update={"kind": Kind.ECHO}),
    LINE.model_copy(update={"button": "yes", "closes": True}),
    IdentityChange(senders=("alice",), external_id="m1", adds=("a-2",), drops=("alice",), has_new_owner=True),
    Status(provider_id="r1", state="failed", key=UUID(int=7), failure_code="131047", at=THEN),
]


def played(item: Item) -> list[Item]:
    signed = STANDARD.sign("http://here", item)
    request = Inbound("http://here", signed.headers, "application/json", signed.body)
    STANDARD.verify(request)
    return list(STANDARD.parse(request).items)


@pytest.mark.parametrize("item", PLAYED, ids=str)
def test_every_form_survives_being_written_and_read(item: Item) -> None:
    assert played(item) == [item]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1))
def test_any_text_arrives_as_it_was_written(text: str) -> None:
    item = LINE.model_copy(update={"text": text})
    assert played(item) == [item]


def test_a_channel_chooses_its_provider() -> None:
    assert isinstance(provider_of(Channel(provider="standard", secrets=(SECRET,))), Standard)
