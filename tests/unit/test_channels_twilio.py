from hashlib import sha256
from urllib.parse import urlencode
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator
from werkzeug.datastructures import MultiDict

from onelane.channels import Inbound, provider_of
from onelane.channels.twilio import EMPTY_TWIML, FORM, signature
from onelane.config import Channel
from onelane.deliveries import Accepted, Delivery
from onelane.errors import BadRequest, BadSignature, Unsupported
from onelane.model import Attachment

Pairs = list[tuple[str, str]]
Form = dict[str, str] | Pairs

TOKEN, OLD_TOKEN = "auth-token-of-today", "auth-token-of-yesterday"
TWILIO = provider_of(Channel(provider="twilio", secrets=(TOKEN, OLD_TOKEN)))
ACCEPTED = Accepted(message_id=UUID(int=1), user_id=UUID(int=2), seq=1, duplicate=False, is_waiting=True)
URL = "https://bot.example/webhooks/support"
MESSAGE = {"MessageSid": "SM1", "From": "whatsapp:+33612345678", "Body": "bonjour", "NumMedia": "0"}


def posted(
    form: Form, *, token: str = TOKEN, url: str = URL, signed_url: str | None = None, content_type: str = FORM
) -> Inbound:
    """Let the SDK sign."""
    pairs = list(form.items()) if isinstance(form, dict) else form
    mac = RequestValidator(token).compute_signature(signed_url or url, MultiDict(pairs))
    return Inbound(url, {"x-twilio-signature": mac}, content_type, urlencode(pairs).encode())


def parsed(form: Form) -> list[Delivery]:
    request = posted(form)
    TWILIO.verify(request)
    return TWILIO.parse(request).deliveries


def test_a_message_is_understood() -> None:
    assert parsed(MESSAGE) == [Delivery(senders=("whatsapp:+33612345678",), external_id="SM1", text="bonjour")]


def test_a_button_brings_its_payload_and_its_label_stands_in_for_a_missing_text() -> None:
    form = {**MESSAGE, "Body": "", "ButtonPayload": "option_1_fr", "ButtonText": "Option 1"}
    [delivery] = parsed(form)
    assert (delivery.button, delivery.text) == ("option_1_fr", "Option 1")
    [delivery] = parsed({**form, "Body": "typed"})
    assert delivery.text == "typed"


def test_media_become_attachments() -> None:
    form = {**MESSAGE, "NumMedia": "2", "MediaUrl0": "https://a/0", "MediaUrl1": "https://a/1"}
    [delivery] = parsed({**form, "MediaContentType0": "image/jpeg"})
    assert delivery.attachments == (
        Attachment(url="https://a/0", content_type="image/jpeg"),
        Attachment(url="https://a/1"),
    )


def test_a_message_without_any_text_is_still_a_message() -> None:
    [delivery] = parsed({**MESSAGE, "Body": "", "Latitude": "48.8", "Longitude": "2.5"})
    assert delivery.text == ""


@pytest.mark.parametrize("status", ["MessageStatus", "SmsStatus"])
def test_a_status_report_holds_no_message_and_is_answered(status: str) -> None:
    assert parsed({"MessageSid": "SM1", "From": "+1", "To": "+2", status: "delivered"}) == []
    assert TWILIO.answer([]).status == 204


def test_an_accepted_message_is_answered_with_empty_twiml() -> None:
    answer = TWILIO.answer([ACCEPTED])
    assert (answer.status, answer.content_type, answer.body) == (200, "text/xml", EMPTY_TWIML)


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"From": "+1", "Body": "x"}, "MessageSid"),
        ({**MESSAGE, "MessageSid": "a b"}, "MessageSid"),
        ({"MessageSid": "SM1", "Body": "x"}, "From"),
        ({**MESSAGE, "From": " "}, "From"),
        ({**MESSAGE, "Body": "x" * 40_000}, "Body"),
        ({**MESSAGE, "Body": "\x00"}, "Body"),
        ({**MESSAGE, "NumMedia": "many"}, "NumMedia"),
        ({**MESSAGE, "NumMedia": "-1"}, "NumMedia"),
        ({**MESSAGE, "NumMedia": "9" * 5_000}, "NumMedia"),
        ({**MESSAGE, "NumMedia": "1"}, "MediaUrl"),
        ({**MESSAGE, "NumMedia": "1", "MediaUrl0": "javascript:alert(1)"}, "MediaUrl"),
        ({**MESSAGE, "ButtonPayload": "x" * 300}, "ButtonPayload"),
        ([*MESSAGE.items(), ("From", "+2")], "body"),
        ([(str(number), "") for number in range(1_001)], "body"),
        ({}, "MessageSid"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_form_that_cannot_be_understood_is_refused_by_its_field(form: Form, field: str) -> None:
    with pytest.raises(BadRequest, match=f"^{field}: "):
        parsed(form)


def test_bytes_that_are_no_utf8_are_signed_as_they_came_and_refused() -> None:
    body = b"MessageSid=SM1&From=%2B1&Body=caf%e9"
    mac = signature(TOKEN, URL, [("MessageSid", "SM1"), ("From", "+1"), ("Body", "caf\udce9")])
    request = Inbound(URL, {"x-twilio-signature": mac}, FORM, body)
    TWILIO.verify(request)
    with pytest.raises(BadRequest, match=r"^Body: "):
        TWILIO.parse(request)


@pytest.mark.parametrize("token", [TOKEN, OLD_TOKEN])
def test_each_token_verifies_during_a_rotation(token: str) -> None:
    TWILIO.verify(posted(MESSAGE, token=token))


@pytest.mark.parametrize(
    ("called", "signed"),
    [
        (URL, "https://bot.example:443/webhooks/support"),
        ("https://bot.example:443/webhooks/support", URL),
        ("http://bot.example:8000/a?b=c", "http://bot.example/a?b=c"),
        ("http://bot.example/a", "http://bot.example:80/a"),
        ("http://[::1]:8000/a", "http://[::1]/a"),
        ("https://user:1234@bot.example/a", "https://user:1234@bot.example:443/a"),
    ],
)
def test_the_address_is_signed_with_or_without_its_port(called: str, signed: str) -> None:
    TWILIO.verify(posted(MESSAGE, url=called, signed_url=signed))


@pytest.mark.parametrize("header", ["", "é", "AAAA", "\ud800", "x" * 10_000], ids=range(5))
def test_another_signature_is_refused(header: str) -> None:
    request = Inbound(URL, {"x-twilio-signature": header}, FORM, b"")
    with pytest.raises(BadSignature):
        TWILIO.verify(request)


def test_a_changed_field_address_or_token_is_not_signed() -> None:
    good = posted(MESSAGE)
    bad = [
        Inbound(URL, good.headers, FORM, good.body + b"&x=y"),
        Inbound(f"{URL}?x=y", good.headers, FORM, good.body),
        posted(MESSAGE, token="somebody else's"),
    ]
    for request in bad:
        with pytest.raises(BadSignature):
            TWILIO.verify(request)


def test_json_is_verified_by_its_hash_in_the_signed_address_and_holds_no_message() -> None:
    body = b'{"type": "event"}'
    url = f"{URL}?bodySHA256={sha256(body).hexdigest()}"
    headers = {"x-twilio-signature": RequestValidator(TOKEN).compute_signature(url, {})}
    request = Inbound(url, headers, "application/json", body)
    assert RequestValidator(TOKEN).validate(url, body.decode(), headers["x-twilio-signature"])
    TWILIO.verify(request)
    assert not TWILIO.parse(request).items
    with pytest.raises(BadSignature):
        TWILIO.verify(Inbound(url, headers, "application/json", body + b" "))


def test_json_without_its_hash_is_not_signed() -> None:
    headers = {"x-twilio-signature": RequestValidator(TOKEN).compute_signature(URL, {})}
    with pytest.raises(BadSignature):
        TWILIO.verify(Inbound(URL, headers, "application/json", b"{}"))


def test_another_content_type_is_unsupported() -> None:
    with pytest.raises(Unsupported):
        TWILIO.verify(posted(MESSAGE, content_type="multipart/form-data"))


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FORMS = st.lists(st.tuples(WORDS, WORDS), max_size=20)
PATHS = st.text("abc/-_.~%20", max_size=20)


@given(FORMS, PATHS, st.sampled_from(["", ":443", ":8443"]))
def test_what_the_sdk_signs_is_verified(pairs: Pairs, path: str, port: str) -> None:
    TWILIO.verify(posted(pairs, url=f"https://bot.example{port}/{path}"))


@given(FORMS, PATHS)
def test_what_we_sign_the_sdk_verifies(pairs: Pairs, path: str) -> None:
    url = f"https://bot.example/{path}"
    assert RequestValidator(TOKEN).compute_signature(url, MultiDict(pairs)) == signature(TOKEN, url, pairs)


def test_a_delivery_survives_being_signed_and_parsed() -> None:
    delivery = Delivery(
        senders=("+1",),
        external_id="SM1",
        text="ça va",
        button="b",
        attachments=(Attachment(url="https://a/0", content_type="image/png"),),
    )
    signed = TWILIO.sign(URL, delivery)
    headers = {name.lower(): value for name, value in signed.headers.items()}
    request = Inbound(URL, headers, FORM, signed.body)
    TWILIO.verify(request)
    assert TWILIO.parse(request).items == [delivery]
