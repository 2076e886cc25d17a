from base64 import b64decode
from hashlib import sha256
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator
from werkzeug.datastructures import MultiDict

from onelane.channels import Inbound, provider_of
from onelane.channels.fields import TEXT_MAX
from onelane.channels.twilio import EMPTY_TWIML, FORM, signature
from onelane.channels.twilio.forms import pairs_of
from onelane.config import Channel
from onelane.deliveries import Accepted, Delivery, IdentityChange, Item, Kind, Quarantined, Status
from onelane.errors import BadRequest, BadSignature, ConfigError, Unsupported
from onelane.model import Attachment, AttachmentKind

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


def test_an_accepted_message_is_answered_with_empty_twiml() -> None:
    answer = TWILIO.answer([ACCEPTED])
    assert (answer.status, answer.content_type, answer.body) == (200, "text/xml", EMPTY_TWIML)


def parsed(form: Form) -> list[Item]:
    request = posted(form)
    TWILIO.verify(request)
    return list(TWILIO.parse(request).items)


def test_nothing_that_is_signed_is_refused_since_twilio_delivers_once() -> None:
    assert not TWILIO.redelivers
    assert parsed({str(number): "" for number in range(1_001)}) == [
        Quarantined("body: must be a form of at most 1000 fields")
    ]
    [cut] = parsed({**MESSAGE, "Body": "x" * 40_000})
    assert isinstance(cut, Delivery)
    assert (len(cut.text), cut.repairs) == (TEXT_MAX, ("cut",))


def test_a_field_whose_name_has_a_nul_is_no_other_field() -> None:
    [delivery] = parsed({**MESSAGE, "From\0": "whatsapp:+33600000000", "Bo\0dy": "mauvais"})
    assert isinstance(delivery, Delivery)
    assert (delivery.senders, delivery.text) == ((MESSAGE["From"],), MESSAGE["Body"])
    assert delivery.repairs == ("nul",)


def test_a_form_that_is_too_large_to_be_handed_on_comes_without_its_text_in_raw() -> None:
    [delivery] = parsed({**MESSAGE, "Body": "x" * 20_000})
    assert isinstance(delivery, Delivery)
    assert (delivery.raw or {}).keys() == MESSAGE.keys() - {"Body"}
    assert not delivery.repairs


def test_bytes_that_are_no_utf8_are_signed_as_they_came_and_replaced() -> None:
    body = b"MessageSid=SM1&From=%2B1&Body=caf%e9"
    mac = signature(TOKEN, URL, [("MessageSid", "SM1"), ("From", "+1"), ("Body", "caf\udce9")])
    request = Inbound(URL, {"x-twilio-signature": mac}, FORM, body)
    TWILIO.verify(request)
    [delivery] = TWILIO.parse(request).deliveries
    assert (delivery.text, delivery.repairs) == ("caf?", ("surrogate",))


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


@pytest.mark.parametrize(
    ("called", "signed", "headers"),
    [
        (URL, "http://bot.example/webhooks/support", {}),
        ("http://bot.example/webhooks/support", URL, {}),
        (URL, "https://tunnel.example/webhooks/support", {"host": "tunnel.example"}),
        ("http://10.0.0.7:8000/webhooks/support", URL, {"x-forwarded-host": "bot.example"}),
        ("https://bot.example/chat/webhooks/support", URL, {}),
        (f"https://bot.example/chat/webhooks/support?reply={UUID(int=7)}", f"{URL}?reply={UUID(int=7)}", {}),
    ],
)
def test_another_address_that_is_signed_is_named_to_the_operator(
    called: str, signed: str, headers: dict[str, str]
) -> None:
    good = posted(MESSAGE, token=OLD_TOKEN, url=called, signed_url=signed)
    with pytest.raises(BadSignature) as refused:
        TWILIO.verify(Inbound(called, {**good.headers, **headers}, FORM, good.body))
    assert refused.value.why.startswith(f"it is signed for {signed.partition('?')[0]}: ")
    assert OLD_TOKEN not in refused.value.why


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


def test_json_is_verified_by_its_hash_in_the_signed_address_and_kept() -> None:
    body = b'{"type": "event"}'
    url = f"{URL}?bodySHA256={sha256(body).hexdigest()}"
    headers = {"x-twilio-signature": RequestValidator(TOKEN).compute_signature(url, {})}
    request = Inbound(url, headers, "application/json", body)
    assert RequestValidator(TOKEN).validate(url, body.decode(), headers["x-twilio-signature"])
    TWILIO.verify(request)
    assert TWILIO.parse(request).items == [Quarantined("body: JSON is of no product that is supported")]
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


PERSONA = TWILIO.persona("alice")
LINE = Delivery(senders=PERSONA.senders, external_id="SM1", text="ça va", route=PERSONA.route)
PLAYED = [
    LINE,
    LINE.model_copy(update={"button": "b", "closes": True}),
    LINE.model_copy(update={"senders": (*PERSONA.senders, "whatsapp:US.1349"), "quoted": "SM0"}),
    LINE.model_copy(
        update={
            "attachments": (
                Attachment(url="https://a/0", kind=AttachmentKind.IMAGE, content_type="image/png"),
                Attachment(url="https://a/1"),
            )
        }
    ),
    LINE.model_copy(update={"text": "", "parts": {"location": {"latitude": 48.8, "longitude": -2.5, "name": "x"}}}),
    LINE.model_copy(update={"kind": Kind.EVENT, "event": "opted_out", "text": "STOP"}),
    Status(provider_id="SM1", state="failed", key=UUID(int=7), failure_code="30003"),
    Status(provider_id="SM1", state="delivered"),
]


@pytest.mark.parametrize("item", PLAYED, ids=str)
def test_what_is_played_is_what_twilio_would_send(item: Item) -> None:
    signed = TWILIO.sign(URL, item)
    headers = {name.lower(): value for name, value in signed.headers.items()}
    request = Inbound(URL + signed.query, headers, FORM, signed.body)
    TWILIO.verify(request)
    [found] = TWILIO.parse(request).items
    assert (found.model_copy(update={"raw": None}) if isinstance(found, Delivery) else found) == item


@pytest.mark.parametrize(
    "item",
    [
        LINE.model_copy(update={"kind": Kind.EVENT, "event": "edited"}),
        LINE.model_copy(update={"kind": Kind.ECHO}),
        IdentityChange(senders=("a",), external_id="b"),
    ],
    ids=str,
)
def test_what_twilio_never_sends_is_not_played(item: Item) -> None:
    with pytest.raises(BadRequest, match="Twilio sends no"):
        TWILIO.sign(URL, item)


def test_a_name_is_always_the_same_number_and_an_address_is_itself() -> None:
    assert PERSONA == TWILIO.persona("alice") != TWILIO.persona("bob")
    assert TWILIO.persona("+15550101").senders == ("+15550101",)
    assert len({TWILIO.persona(str(number)).senders for number in range(10_000)}) == 10_000


MEDIA = f"https://api.twilio.com/2010-04-01/Accounts/AC{'0' * 32}/Messages/MM1/Media/ME1"


def test_a_file_is_fetched_with_the_key_or_as_the_account_and_from_twilio_alone() -> None:
    key = {"api_key": f"SK{'0' * 32}", "api_secret": "the-secret-of-a-key"}
    [by_token] = TWILIO.file(Attachment(url=MEDIA))
    [by_key] = provider_of(Channel(provider="twilio", secrets=(TOKEN,), **key)).file(Attachment(url=MEDIA))
    assert b64decode(by_token.headers["Authorization"].split()[1]).decode() == f"AC{'0' * 32}:{TOKEN}"
    assert b64decode(by_key.headers["Authorization"].split()[1]).decode() == ":".join(key.values())
    assert by_token.hosts[0] == "https://api.twilio.com"
    assert TOKEN not in repr(by_token)
    for url in (None, "https://elsewhere.example/1", "https://api.twilio.com.example/1"):
        with pytest.raises(BadRequest):
            list(TWILIO.file(Attachment(url=url)))


def test_a_key_without_its_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="belong together"):
        provider_of(Channel(provider="twilio", secrets=(TOKEN,), api_key=f"SK{'0' * 32}"))


@pytest.mark.parametrize("header", ["", "AAAA", "A" * 28, f"{'A' * 27}=" * 2], ids=range(4))
def test_a_form_without_the_likeness_of_a_signature_is_refused_unread(
    header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_body: bytes) -> Pairs:
        raise AssertionError("it was read")

    monkeypatch.setattr("onelane.channels.twilio.signing.pairs_of", read)
    with pytest.raises(BadSignature):
        TWILIO.verify(Inbound(URL, {"x-twilio-signature": header}, FORM, b"a=b"))


@given(st.binary(max_size=60) | st.text("a=&%+0é1", max_size=40).map(str.encode))
def test_forms_are_read_as_python_reads_them(body: bytes) -> None:
    text = body.decode("utf-8", "surrogateescape")
    read = parse_qsl(text, keep_blank_values=True, errors="surrogateescape")
    assert [as_sent(pair) for pair in pairs_of(body)] == [as_sent(pair) for pair in read]


def as_sent(pair: tuple[str, str]) -> list[bytes]:
    return [half.encode("utf-8", "surrogateescape") for half in pair]
