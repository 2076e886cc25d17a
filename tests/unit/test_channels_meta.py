"""WhatsApp through Meta: signature, handshake, files, batches of our own. What becomes of payloads: test_payloads."""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelane.channels import Inbound, provider_of
from onelane.channels.meta.envelope import ITEMS_MAX, LISTS, OBJECT
from onelane.config import Channel
from onelane.deliveries import Delivery, IdentityChange, Ignored, Item, Kind, Quarantined, Status
from onelane.errors import BadHandshake, BadRequest, BadSignature, ConfigError, Unsupported
from onelane.model import Attachment, AttachmentKind, Author
from onelane.testing.conformance.case import cases
from tests.payloads import objects_of
from tests.payloads.meta import openssl_hmac

SECRET, OLD_SECRET = "app-secret-of-today", "app-secret-of-yesterday"
TOKEN, OLD_TOKEN = "verify-token-of-today", "verify-token-of-yesterday"
ACCESS_TOKEN = "access-token-of-today"
JSON = "application/json"
CHANNEL = Channel(
    provider="meta", secrets=(SECRET, OLD_SECRET), verify_tokens=(TOKEN, OLD_TOKEN), access_token=ACCESS_TOKEN
)
META = provider_of(CHANNEL)
ALICE, BOB = META.persona("alice").senders, META.persona("bob").senders
HELLO = Delivery(senders=ALICE, external_id="wamid.1", text="hello")


def posted(body: bytes, header: str | None = None, content_type: str = JSON) -> Inbound:
    signature = f"sha256={openssl_hmac(SECRET, body)}" if header is None else header
    return Inbound("https://bot.example/webhooks/x", {"x-hub-signature-256": signature}, content_type, body)


def ours(items: Iterable[Item]) -> list[Item]:
    """Sign items as one batch, verify it, read it back without what the way there adds."""
    [signed] = META.sign_all("", list(items))
    headers = {name.lower(): value for name, value in signed.headers.items()}
    request = Inbound("", headers, JSON, signed.body)
    META.verify(request)
    return [bare(item) for item in META.parse(request).items]


def bare(item: Item) -> Item:
    if isinstance(item, Status):
        return item.model_copy(update={"at": None})
    if isinstance(item, Delivery | IdentityChange):
        return item.model_copy(update={"raw": None, "route": None, "sent_at": None})
    return item


def asked(**query: str) -> Inbound:
    named = urlencode({f"hub.{name}": value for name, value in query.items()})
    return Inbound(f"https://bot.example/webhooks/x?{named}", {}, "", b"")


def parsed(document: Any) -> list[Item]:
    return list(META.parse(Inbound("", {}, JSON, json.dumps(document).encode())).items)


@pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
def test_what_openssl_signs_with_any_of_the_secrets_is_verified(secret: str) -> None:
    body = '{"object": "é"}'.encode()
    META.verify(posted(body, f"sha256={openssl_hmac(secret, body)}"))


def test_one_changed_bit_is_not_signed() -> None:
    good = posted(b'{"object": "x"}')
    for at in range(len(good.body)):
        changed = bytearray(good.body)
        changed[at] ^= 1
        with pytest.raises(BadSignature):
            META.verify(Inbound(good.url, good.headers, JSON, bytes(changed)))


@pytest.mark.parametrize(
    "header",
    ["", "sha256=", "sha256=é", "\ud800", "x" * 10_000, *(f"{kind}={'0' * 64}" for kind in ("sha256", "sha1"))],
    ids=range(7),
)
def test_another_signature_is_refused(header: str) -> None:
    with pytest.raises(BadSignature):
        META.verify(posted(b"{}", header))


def test_somebody_elses_secret_does_not_sign() -> None:
    with pytest.raises(BadSignature):
        META.verify(posted(b"{}", f"sha256={openssl_hmac('app-secret-of-others', b'{}')}"))


def test_another_content_type_is_unsupported() -> None:
    with pytest.raises(Unsupported):
        META.verify(posted(b"{}", content_type="text/plain"))


@pytest.mark.parametrize("token", [TOKEN, OLD_TOKEN])
def test_who_knows_a_verify_token_gets_the_challenge_back(token: str) -> None:
    answer = META.handshake(asked(mode="subscribe", verify_token=token, challenge="1158201444"))
    assert (answer.status, answer.content_type, answer.body) == (200, "text/plain", "1158201444")


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"mode": "subscribe", "verify_token": TOKEN},
        {"mode": "subscribe", "verify_token": TOKEN, "challenge": "x" * 300},
        {"mode": "subscribe", "verify_token": TOKEN, "challenge": "a\r\nb"},
        {"mode": "subscribe", "verify_token": f"{TOKEN}é", "challenge": "secret-word"},
        {"mode": "subscribe", "verify_token": "", "challenge": "secret-word"},
        {"mode": "denied", "verify_token": TOKEN, "challenge": "secret-word"},
    ],
    ids=range(7),
)
def test_whoever_else_asks_gets_403_without_the_challenge_and_the_log_tells_why(query: dict[str, str]) -> None:
    with pytest.raises(BadHandshake, match=r"^the handshake is refused$") as refused:
        META.handshake(asked(**query))
    assert refused.value.status == 403
    assert refused.value.why
    assert not {"secret-word", TOKEN} & set(refused.value.why.split())


def test_a_token_given_twice_or_among_very_many_fields_is_refused() -> None:
    good = asked(mode="subscribe", verify_token=TOKEN, challenge="1")
    for more in (f"hub.verify_token={TOKEN}", "&".join(["a=b"] * 50)):
        with pytest.raises(BadHandshake):
            META.handshake(Inbound(f"{good.url}&{more}", {}, "", b""))


@pytest.mark.parametrize("token", ["", TOKEN])
def test_without_verify_tokens_no_handshake_succeeds(token: str) -> None:
    meta = provider_of(Channel(provider="meta", secrets=(SECRET,)))
    with pytest.raises(BadHandshake):
        meta.handshake(asked(mode="subscribe", verify_token=token, challenge="1"))


def test_every_batch_is_answered_with_200() -> None:
    assert (META.answer([]).status, META.answer([]).body) == (200, "")


ITEMS: list[Item] = [
    HELLO,
    HELLO.model_copy(update={"text": "yes", "button": "b1", "closes": True, "quoted": "wamid.0"}),
    HELLO.model_copy(update={"senders": BOB, "author": Author(id=BOB[0], name="Bob")}),
    HELLO.model_copy(update={"text": "", "attachments": (Attachment(id="77", kind=AttachmentKind.VOICE),)}),
    HELLO.model_copy(update={"attachments": (Attachment(id="78", content_type="text/plain", name="a.txt"),)}),
    HELLO.model_copy(update={"text": "", "parts": {"location": {"latitude": 1.5, "longitude": 2.5}}}),
    HELLO.model_copy(update={"parts": {"forwarded": True}}),
    HELLO.model_copy(update={"conversation": "group:g7", "author": Author(id=ALICE[0])}),
    HELLO.model_copy(update={"kind": Kind.ECHO}),
    *(
        HELLO.model_copy(update={"text": "", "kind": Kind.EVENT, **event})
        for event in (
            {"event": "reaction", "quoted": "wamid.0", "parts": {"reaction": {"emoji": "+"}}},
            {"event": "edited", "quoted": "wamid.0", "text": "new"},
            {"event": "deleted", "quoted": "wamid.0"},
            {"event": "opened"},
            {"event": "unsupported", "parts": {"unsupported": {"code": 131051}}},
        )
    ),
    IdentityChange(senders=ALICE, external_id="wamid.2", adds=("US.77",)),
    IdentityChange(senders=ALICE, external_id="wamid.2", adds=("15550109", "US.77"), drops=(ALICE[0],)),
    IdentityChange(senders=ALICE[1:], external_id="wamid.2", adds=("US.77",)),
    IdentityChange(senders=ALICE, external_id="wamid.2", has_new_owner=True),
    Status(provider_id="wamid.3", state="delivered", key=UUID(int=7)),
    Status(provider_id="wamid.3", state="failed", failure_code="131047", participant="15550109"),
]


def test_all_that_can_be_written_is_read_back_in_its_order_from_one_batch() -> None:
    assert ours(ITEMS) == ITEMS


@pytest.mark.parametrize("wish", ["opted_out", "opted_in"])
def test_a_preference_is_read_back_with_an_id_that_tells_nothing(wish: str) -> None:
    [item] = ours([HELLO.model_copy(update={"kind": Kind.EVENT, "event": wish})])
    assert isinstance(item, Delivery)
    assert (item.event, item.senders) == (wish, ALICE)
    assert ALICE[0] not in item.external_id


@pytest.mark.parametrize(
    "item",
    [
        HELLO.model_copy(update={"attachments": (Attachment(id="1"), Attachment(id="2"))}),
        HELLO.model_copy(update={"attachments": (Attachment(url="https://a/0"),)}),
        HELLO.model_copy(update={"event": "joined"}),
        IdentityChange(senders=ALICE, external_id="wamid.2"),
        IdentityChange(senders=ALICE, external_id="wamid.2", adds=("US.7",), drops=(ALICE[1],)),
        Ignored("x"),
    ],
    ids=range(6),
)
def test_what_meta_never_sends_is_not_written(item: Item) -> None:
    with pytest.raises(BadRequest):
        META.sign("", item)


def test_neighbours_of_one_list_share_a_change() -> None:
    [signed] = META.sign_all("", [HELLO, HELLO, Status(provider_id="wamid.3", state="sent"), HELLO])
    [entry] = json.loads(signed.body)["entry"]
    assert [set(change["value"]) & {"messages", "statuses"} for change in entry["changes"]] == [
        {"messages"},
        {"statuses"},
        {"messages"},
    ]
    assert len(entry["changes"][0]["value"]["messages"]) == 2


def test_a_name_is_always_the_same_person_and_no_two_are_one() -> None:
    people = [META.persona(f"user-{number}").senders for number in range(1_000)]
    assert people == [META.persona(f"user-{number}").senders for number in range(1_000)]
    assert len({name for senders in people for name in senders}) == 2_000


def test_a_batch_of_more_than_meta_sends_is_kept_unread() -> None:
    many = {"field": "messages", "value": {"messages": [{}] * (ITEMS_MAX + 1)}}
    assert parsed({"object": OBJECT, "entry": [{"changes": [many]}]}) == [
        Quarantined(f"entry: must not hold more than {ITEMS_MAX} items")
    ]


@pytest.mark.parametrize("name", ["phone", "wa_id"])
def test_a_number_that_somebody_gave_as_their_own_is_never_mended(name: str) -> None:
    """Without what is odd it might be another's; with it Postgres refused all that was asked together."""
    card = {"origin": "contact_request", "contacts": [{"phones": [{name: "15550\x00102"}]}]}
    message = {"from": "15550101", "id": "wamid.1", "type": "contacts", **card}
    change = {"field": "messages", "value": {"messages": [message]}}
    assert parsed({"object": OBJECT, "entry": [{"changes": [change]}]}) == [
        Quarantined(f"contacts.0.phones.0.{name}: must not contain NUL characters or lone surrogates")
    ]


def test_a_file_is_fetched_in_two_steps_each_with_the_token_and_only_from_metas_hosts() -> None:
    steps = META.file(Attachment(id="500"))
    asking = next(steps)
    assert asking.url == "https://graph.facebook.com/v26.0/500"
    assert asking.hosts == ("graph.facebook.com",)
    fetching = steps.send(b'{"url": "https://lookaside.fbsbx.com/f?mid=500", "id": "500"}')
    assert fetching.url == "https://lookaside.fbsbx.com/f?mid=500"
    assert fetching.hosts == ("graph.facebook.com", ".fbcdn.net", "lookaside.fbsbx.com")
    assert dict(fetching.headers) == dict(asking.headers) == {"Authorization": f"Bearer {ACCESS_TOKEN}"}
    assert ACCESS_TOKEN not in repr((asking, fetching))
    with pytest.raises(StopIteration):
        steps.send(b"the file")


def test_a_configured_address_is_allowed_with_its_scheme() -> None:
    meta = provider_of(
        Channel(provider="meta", secrets=(SECRET,), access_token=ACCESS_TOKEN, base_url="http://127.0.0.1:8081/")
    )
    asking = next(meta.file(Attachment(id="500")))
    assert (asking.url, asking.hosts) == ("http://127.0.0.1:8081/v26.0/500", ("http://127.0.0.1:8081",))


@pytest.mark.parametrize("found", [b"", b"[]", b"{}", b'{"url": 7}'])
def test_an_answer_without_the_files_address_ends_the_way(found: bytes) -> None:
    steps = META.file(Attachment(id="500"))
    next(steps)
    with pytest.raises(BadRequest):
        steps.send(found)


@pytest.mark.parametrize("name", [None, "", "../me", "5?x=y", "https://bad.example/"])
def test_what_is_no_id_of_a_file_is_asked_of_nobody(name: str | None) -> None:
    with pytest.raises(BadRequest, match=r"^attachment: "):
        META.file(Attachment(id=name))


def test_without_an_access_token_no_file_is_fetched() -> None:
    meta = provider_of(Channel(provider="meta", secrets=(SECRET,)))
    with pytest.raises(BadRequest, match=r"^access_token: is not set"):
        meta.file(Attachment(id="500"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("verify_tokens", ["short"]),
        ("verify_tokens", [TOKEN] * 9),
        ("access_token", "with a blank"),
        ("phone_number_id", "+1 555"),
        ("api_version", "latest"),
        ("base_url", "ftp://graph.example"),
    ],
)
def test_an_impossible_setting_is_named_and_not_repeated(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name}") as caught:
        provider_of(Channel(**{**CHANNEL.model_dump(exclude_defaults=True), "secrets": [SECRET], name: value}))
    assert str(value) not in str(caught.value)


def test_no_secret_shows_in_a_repr() -> None:
    shown = repr(vars(META)["_settings"])
    assert not any(secret in shown for secret in (SECRET, TOKEN, ACCESS_TOKEN))


OBJECTS_SENT = [one for case in cases() if case.provider == "meta" for one in objects_of(case)]
TEXTS_SENT = {value for one in OBJECTS_SENT for value in one.values() if isinstance(value, str) and len(value) < 200}
KEYS = sorted({name for one in OBJECTS_SENT for name in one} - {"object", "entry", "changes", "field"})
WORDS = st.sampled_from(sorted(TEXTS_SENT)) | st.text(st.characters(), max_size=4)
NUMBERS = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6)
ROOTS = [(field, name) for field, lists in LISTS.items() for name in lists]


@given(st.sampled_from(ROOTS), st.lists(OBJECTS | VALUES, min_size=1, max_size=4), VALUES, VALUES)
def test_every_part_of_a_signed_batch_becomes_one_item_whatever_it_holds(
    root: tuple[str, str], parts: list[Any], contacts: Any, metadata: Any
) -> None:
    field, name = root
    value = {"contacts": contacts, "metadata": metadata, name: parts}
    items = parsed({"object": OBJECT, "entry": [{"changes": [{"field": field, "value": value}]}]})
    assert len(items) == len(parts)
    for item in items:
        if isinstance(item, Delivery | IdentityChange | Status):
            stored = item.model_dump_json()
            assert "\\u0000" not in stored


@given(VALUES | st.fixed_dictionaries({"object": st.just(OBJECT), "entry": VALUES}))
def test_whatever_is_signed_is_read_without_an_error(document: Any) -> None:
    assert parsed(document)


@given(st.binary(max_size=64))
def test_whatever_bytes_are_signed_are_read_without_an_error(body: bytes) -> None:
    assert META.parse(Inbound("", {}, JSON, body)).items
