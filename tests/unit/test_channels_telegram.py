"""Telegram: the secret, files, whatever JSON comes, and updates of our own. Cases: testing/conformance."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelane.channels import FileRequest, Inbound, Provider, provider_of
from onelane.channels.telegram.composing import number_of
from onelane.channels.telegram.kinds import IGNORED, READERS
from onelane.config import Channel
from onelane.deliveries import Delivery, IdentityChange, Item, Kind, Status
from onelane.errors import BadRequest, BadSignature, Unsupported
from onelane.model import Attachment, AttachmentKind, Author, JsonObject
from onelane.testing.conformance.case import cases
from tests.payloads.telegram import SECRET, SETTINGS, signed

TELEGRAM = provider_of(Channel(provider="telegram", **SETTINGS))
TOKEN = SETTINGS["bot_token"]
URL = "https://bot.example/webhooks/bot"
CASES = [case for case in cases() if case.provider == "telegram"]


def posted(body: bytes, *, secret: str = SECRET, content_type: str = "application/json") -> Inbound:
    return Inbound(URL, {"x-telegram-bot-api-secret-token": secret} if secret else {}, content_type, body)


def received(item: Item, provider: Provider = TELEGRAM) -> list[Item]:
    """Let the provider sign an item, and read it again."""
    made = provider.sign(URL, item)
    headers = {name.lower(): value for name, value in made.headers.items()}
    request = Inbound(URL, headers, headers["content-type"], made.body)
    provider.verify(request)
    return list(provider.parse(request).items)


@pytest.mark.parametrize("secret", SETTINGS["secrets"])
def test_each_secret_verifies_during_a_rotation(secret: str) -> None:
    TELEGRAM.verify(posted(b"{}", secret=secret))


@pytest.mark.parametrize("secret", ["", SECRET[:-1], f"{SECRET}x", SECRET.upper(), "é", "\ud800"], ids=range(6))
def test_another_secret_is_refused(secret: str) -> None:
    with pytest.raises(BadSignature) as caught:
        TELEGRAM.verify(posted(b"{}", secret=secret))
    assert SECRET not in f"{caught.value}{caught.value.why}"


def test_a_missing_secret_is_refused_before_anything_else_and_a_form_before_it_is_read() -> None:
    with pytest.raises(BadSignature):
        TELEGRAM.verify(posted(b"a=b", secret="", content_type="text/plain"))
    with pytest.raises(Unsupported):
        TELEGRAM.verify(posted(b"a=b", content_type="application/x-www-form-urlencoded"))


def test_an_update_is_answered_without_a_body_since_telegram_would_take_one_for_a_call() -> None:
    answer = TELEGRAM.answer([])
    assert (answer.status, answer.body) == (200, "")


def test_every_kind_of_update_has_a_case() -> None:
    shown = {kind for case in CASES for kind in case.request.get("body", {}) if kind != "update_id"}
    assert set(READERS) | IGNORED <= shown
    assert not set(READERS) & IGNORED


NAMES = sorted(
    {"id", "type", "chat", "message", "from", "text", "date", "message_id", "photo", "entities", "data", "update_id"}
)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[JsonObject]:
    return st.dictionaries(st.sampled_from(NAMES), values, max_size=4)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | objects(inner),
    max_leaves=6,
)


def is_storable(item: Item) -> bool:
    """Whether Postgres can hold all of an item."""
    text = json.dumps(item.model_dump(mode="json"), ensure_ascii=False) if isinstance(item, Delivery) else ""
    return "\\u0000" not in text and bool(text.encode() or True)


def understood(body: JsonObject) -> list[Item]:
    items = list(TELEGRAM.parse(posted(json.dumps(body).encode())).items)
    assert items
    assert all(map(is_storable, items))
    return items


@given(st.sampled_from(sorted(READERS)), objects(JSON_VALUES))
def test_whatever_json_an_update_has_it_is_read_or_quarantined(kind: str, content: JsonObject) -> None:
    understood({"update_id": 1, kind: content})


@given(st.binary(max_size=100))
def test_whatever_bytes_a_body_has_it_is_read_or_quarantined(body: bytes) -> None:
    assert TELEGRAM.parse(posted(body)).items


def places(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """Walk through the places of a JSON value, its own included."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, *path, key)


def replaced(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    key, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replaced(copy[key], tuple(rest), other)
    return copy


BODIES = [case.request["body"] for case in CASES if isinstance(case.request.get("body"), dict)]
ODD: list[Any] = [None, True, -1, 2**60, 1.5, "", "\0\ud800", [], {}, [[]], [None], "x" * 40_000]


@given(st.data())
def test_a_valid_update_with_any_value_in_any_place_is_read_or_quarantined(data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(BODIES))
    path = data.draw(st.sampled_from(list(places(body))[1:]))
    understood(replaced(body, path, data.draw(st.sampled_from(ODD) | JSON_VALUES)))


def test_a_large_update_is_read_without_its_raw_object() -> None:
    message = {"message_id": 1, "chat": {"id": 5, "type": "private"}, "text": "hi", "extra": "x" * 20_000}
    [item] = understood({"update_id": 1, "message": message})
    assert isinstance(item, Delivery)
    assert (item.text, item.raw) == ("hi", None)


def test_without_a_name_of_the_bot_every_command_is_its_own_and_nobody_calls_it() -> None:
    nameless = provider_of(Channel(provider="telegram", secrets=(SECRET,)))
    group = {"id": -5, "type": "group"}
    text = {"text": "/go@Other @", "entities": [{"type": "bot_command", "offset": 0, "length": 9}]}
    body = {"update_id": 1, "message": {"message_id": 1, "chat": group, **text}}
    [item] = nameless.parse(posted(json.dumps(body).encode())).items
    assert isinstance(item, Delivery)
    assert (item.closes, item.mentioned) == (True, False)


def steps(attachment: Attachment, found: object, base_url: str = "https://api.telegram.org") -> list[FileRequest]:
    provider = provider_of(Channel(provider="telegram", **{**SETTINGS, "base_url": base_url}))
    walk = provider.file(attachment)
    asked = next(walk)
    return [asked, walk.send(json.dumps(found).encode())]


def test_a_file_is_asked_for_and_then_fetched_from_the_bot_apis_host_alone() -> None:
    found = {"ok": True, "result": {"file_id": "A b", "file_path": "photos/file 1.jpg"}}
    asked, fetched = steps(Attachment(id="A b"), found)
    assert urlsplit(asked.url).path == f"/bot{TOKEN}/getFile"
    assert parse_qs(urlsplit(asked.url).query) == {"file_id": ["A b"]}
    assert fetched.url == f"https://api.telegram.org/file/bot{TOKEN}/photos/file%201.jpg"
    assert asked.hosts == fetched.hosts == ("api.telegram.org",)
    assert str(TOKEN) not in f"{asked!r}{fetched!r}"


def test_a_bot_api_server_of_ones_own_is_asked_where_it_is() -> None:
    asked, fetched = steps(Attachment(id="A"), {"result": {"file_path": "a"}}, "http://127.0.0.1:8081/api/")
    assert asked.url.startswith("http://127.0.0.1:8081/api/bot")
    assert fetched.url.startswith("http://127.0.0.1:8081/api/file/bot")
    assert asked.hosts == ("http://127.0.0.1:8081",)


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"ok": False, "description": "Bad Request: file is too big"},
        {"result": {"file_path": "/etc/passwd"}},
        {"result": {"file_path": "a/../../b"}},
        {"result": {"file_path": "a?b"}},
        {"result": []},
        [],
    ],
    ids=range(7),
)
def test_a_path_that_leads_elsewhere_is_refused(found: object) -> None:
    with pytest.raises(BadRequest):
        steps(Attachment(id="A"), found)


@pytest.mark.parametrize(
    "attachment", [Attachment(), Attachment(url="https://a"), Attachment(id="x" * 2_000)], ids=range(3)
)
def test_what_is_no_file_of_telegrams_is_not_fetched(attachment: Attachment) -> None:
    with pytest.raises(BadRequest, match=r"^attachment: "):
        TELEGRAM.file(attachment)


def test_without_a_token_no_file_is_fetched() -> None:
    with pytest.raises(BadRequest, match=r"^attachment: .*no bot_token"):
        provider_of(Channel(provider="telegram", secrets=(SECRET,))).file(Attachment(id="A"))


def test_a_person_is_always_the_same_number_and_a_number_is_itself() -> None:
    [alice] = TELEGRAM.persona("alice").senders
    assert TELEGRAM.persona("alice").senders == (alice,)
    assert TELEGRAM.persona("bob").senders != (alice,)
    assert number_of(alice) == int(alice)
    assert TELEGRAM.persona("alice").route == {"chat_id": int(alice)}


Fields = dict[str, Any]

AT = datetime(2026, 9, 21, tzinfo=UTC)
ALICE = Author(id="5550101", name="Alice")
DM: Fields = {"senders": ("5550101",), "author": ALICE, "route": {"chat_id": 5550101}}
GROUP: Fields = {
    "senders": ("5550101",),
    "conversation": "-1005550001:topic:12",
    "author": ALICE,
    "route": {"chat_id": -1005550001, "message_thread_id": 12},
}
BUSINESS: Fields = {
    **GROUP,
    "conversation": "business:bc:5550101",
    "route": {"chat_id": 5550101, "business_connection_id": "bc"},
}
EVENT: Fields = {"external_id": "9", "kind": Kind.EVENT, "sent_at": AT}


@pytest.mark.parametrize(
    "item",
    [
        Delivery(**DM, external_id="5550101:7", text="bonjour", sent_at=AT),
        Delivery(**DM, external_id="5550101:7", text="/start", closes=True, sent_at=AT),
        Delivery(**DM, external_id="5550101:7", text="yes", quoted="5550101:6", sent_at=AT),
        Delivery(**GROUP, external_id="-1005550001:7", text="hello", sent_at=AT),
        Delivery(**BUSINESS, external_id="bc:5550101:7", text="hello", sent_at=AT),
        Delivery(
            **DM,
            external_id="5550101:7",
            text="my cat",
            attachments=(Attachment(id="P", kind=AttachmentKind.IMAGE, content_type="image/jpeg"),),
            parts={"album": "12"},
            sent_at=AT,
        ),
        Delivery(**DM, external_id="5550101:7", parts={"location": {"latitude": 1.5, "longitude": 2.5}}, sent_at=AT),
        Delivery(**DM, external_id="5550101:7", parts={"contacts": [{"name": "Bob", "phones": ["+1"]}]}, sent_at=AT),
        Delivery(**DM, **EVENT, event="edited", text="new", quoted="5550101:7"),
        Delivery(**BUSINESS, **EVENT, event="edited", text="new", quoted="bc:5550101:7"),
        Delivery(
            **DM, **EVENT, event="reaction", quoted="5550101:7", parts={"reaction": {"emoji": "\N{HEAVY BLACK HEART}"}}
        ),
        Delivery(**DM, **EVENT, event="reaction", quoted="5550101:7", parts={"reaction": {"emoji": None}}),
        Delivery(**DM, **EVENT, event="blocked"),
        Delivery(**DM, **EVENT, event="unblocked"),
        Delivery(**GROUP, **EVENT, event="joined"),
        IdentityChange(
            senders=("-5",), adds=("-1005",), external_id="migration:-5:-1005", route={"chat_id": -1005}, sent_at=AT
        ),
    ],
    ids=lambda item: getattr(item, "event", None) or type(item).__name__,
)
def test_an_item_survives_being_signed_and_parsed(item: Delivery | IdentityChange) -> None:
    [read] = received(item)
    assert isinstance(read, Delivery | IdentityChange)
    assert read.model_copy(update={"raw": None}) == item


def test_a_button_an_echo_and_a_deletion_survive_too() -> None:
    [button] = received(Delivery(**DM, external_id="9", text="Yes", button="yes", closes=True, quoted="5550101:7"))
    assert isinstance(button, Delivery)
    assert (button.text, button.button, button.closes, button.quoted) == ("Yes", "yes", True, "5550101:7")
    [echo] = received(Delivery(**BUSINESS, external_id="bc:5550101:7", kind=Kind.ECHO, text="we are open"))
    assert isinstance(echo, Delivery)
    assert (echo.kind, echo.senders, echo.conversation) == (Kind.ECHO, ("5550101",), "business:bc:5550101")
    [gone] = received(Delivery(**BUSINESS, **EVENT, event="deleted", quoted="bc:5550101:7"))
    assert isinstance(gone, Delivery)
    assert (gone.event, gone.quoted) == ("deleted", "bc:5550101:7")


def test_an_album_is_signed_as_one_request_a_picture() -> None:
    one = Delivery(**DM, external_id="5550101:7", parts={"album": "1"}, attachments=(Attachment(id="P"),))
    pictures = [one, one.model_copy(update={"external_id": "5550101:8"})]
    assert len(TELEGRAM.sign_all(URL, pictures)) == 2


def test_names_that_are_no_numbers_are_made_into_some() -> None:
    [item] = received(Delivery(senders=("alice",), external_id="m1", text="hi", conversation="the family"))
    assert isinstance(item, Delivery)
    assert item.senders == TELEGRAM.persona("alice").senders
    assert item.conversation == f"-{number_of('the family')}"


@pytest.mark.parametrize(
    "item",
    [
        Status(provider_id="1", state="sent"),
        IdentityChange(senders=("5550101",), adds=("5550102",), external_id="1"),
        Delivery(**DM, **EVENT, event="opened"),
        Delivery(**DM, **EVENT, event="deleted", quoted="5550101:7"),
        Delivery(**DM, external_id="1", attachments=(Attachment(id="1"), Attachment(id="2"))),
    ],
    ids=["status", "a person", "event", "deletion", "two files"],
)
def test_what_telegram_never_sends_is_not_signed(item: Item) -> None:
    with pytest.raises(BadRequest):
        TELEGRAM.sign(URL, item)


def test_neither_secret_nor_token_shows_in_what_the_adapter_is() -> None:
    settings = type(TELEGRAM).settings_model.model_validate(SETTINGS)
    shown = f"{settings!r}{settings}{TELEGRAM!r}{signed(posted(b''))}"
    assert str(TOKEN) not in shown
