import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from onelane.channels.meta.codes import CODES
from onelane.channels.sender import OnUnknown
from onelane.channels.sending import Outgoing, Piece, Sign, SignKind
from onelane.channels.verdicts import Certainty, Outcome, Response, Scope, Unsendable, Verdict, Word
from onelane.model import Attachment, AttachmentKind, Button, JsonObject
from tests.unit.test_sending import sender_of

META = sender_of("meta")
KEY = UUID(int=16)
ROUTE = {"phone_number_id": "100", "to": "4915550100"}
ADDRESS = "https://graph.facebook.com/v26.0/100/messages"
ALWAYS = {"messaging_product": "whatsapp", "biz_opaque_callback_data": str(KEY)}
WAMID = "wamid.HBgM"
SINCE = datetime(2026, 11, 26, 12, tzinfo=UTC)


def outgoing(
    piece: Piece | str = "hello", route: JsonObject | None = ROUTE, to: tuple[str, ...] = (), attempt: int = 1
) -> Outgoing:
    return Outgoing(KEY, to, Piece(text=piece) if isinstance(piece, str) else piece, route, attempt)


def body_of(out: Outgoing) -> Any:
    return json.loads(META.request(out).body)


def judged(status: int, content: Any, attempt: int = 1) -> Verdict:
    return META.judge(outgoing(attempt=attempt), Response(status, {}, json.dumps(content).encode()))


def error(code: Any, **more: Any) -> JsonObject:
    return {"error": {"message": "(#1) no", "type": "OAuthException", "code": code, "fbtrace_id": "A", **more}}


def test_a_text_is_one_post_with_the_replys_id() -> None:
    request = META.request(outgoing())
    assert (request.name, request.method, request.url) == ("messages", "POST", ADDRESS)
    assert request.headers == {"Content-Type": "application/json", "Authorization": "Bearer EAAGtokenOfMeta0123"}
    assert json.loads(request.body) == {
        **ALWAYS,
        "recipient_type": "individual",
        "to": "4915550100",
        "type": "text",
        "text": {"body": "hello"},
    }


def test_version_and_address_are_settings() -> None:
    meta = sender_of("meta", base_url="http://127.0.0.1:9/", api_version="v27.1", phone_number_id="200")
    request = meta.request(outgoing(route=None, to=("4915550100",)))
    assert request.url == "http://127.0.0.1:9/v27.1/200/messages"


@pytest.mark.parametrize(
    ("route", "to", "receiver"),
    [
        ({"to": "1", "recipient": "US.2"}, (), {"recipient_type": "individual", "to": "1", "recipient": "US.2"}),
        ({"recipient": "US.2"}, ("1",), {"recipient_type": "individual", "recipient": "US.2"}),
        ({}, ("US.ENT.3", "US.2", "1"), {"recipient_type": "individual", "to": "1", "recipient": "US.2"}),
        ({}, ("US.ENT.3",), {"recipient_type": "individual", "recipient": "US.ENT.3"}),
        ({"group_id": "G1"}, ("1",), {"recipient_type": "group", "to": "G1"}),
        ({}, ("group:G1",), {"recipient_type": "group", "to": "G1"}),
    ],
    ids=["both", "the route alone", "aliases", "a parent id", "a group", "a group's alias"],
)
def test_the_receiver_is_the_routes_else_the_aliases(
    route: JsonObject, to: tuple[str, ...], receiver: JsonObject
) -> None:
    assert body_of(outgoing(route={"phone_number_id": "100", **route}, to=to)) == {
        **ALWAYS,
        **receiver,
        "type": "text",
        "text": {"body": "hello"},
    }


@pytest.mark.parametrize(
    ("route", "to"), [(None, ("1",)), ({"phone_number_id": "100"}, ()), ({"phone_number_id": "1/2"}, ("1",))]
)
def test_without_a_number_on_both_sides_there_is_no_route(route: JsonObject | None, to: tuple[str, ...]) -> None:
    with pytest.raises(Unsendable) as refused:
        META.request(outgoing(route=route, to=to))
    assert refused.value.word is Word.NO_ROUTE


@pytest.mark.parametrize(
    ("piece", "content"),
    [
        (
            Piece(text="Sure?", buttons=(Button(id="y", title="Yes"), Button(id="n", title="No"))),
            {
                "type": "interactive",
                "interactive": {
                    "type": "button",
                    "body": {"text": "Sure?"},
                    "action": {
                        "buttons": [
                            {"type": "reply", "reply": {"id": "y", "title": "Yes"}},
                            {"type": "reply", "reply": {"id": "n", "title": "No"}},
                        ]
                    },
                },
            },
        ),
        (
            Piece(text="look", media=(Attachment(url="https://bot.example/1.png", kind=AttachmentKind.IMAGE),)),
            {"type": "image", "image": {"link": "https://bot.example/1.png", "caption": "look"}},
        ),
        (
            Piece(media=(Attachment(id="77", name="bill.pdf"),)),
            {"type": "document", "document": {"id": "77", "filename": "bill.pdf"}},
        ),
        (Piece(media=(Attachment(id="77", kind=AttachmentKind.VOICE),)), {"type": "audio", "audio": {"id": "77"}}),
        (
            Piece(template={"name": "hello_world", "language": {"code": "en_US"}}),
            {"type": "template", "template": {"name": "hello_world", "language": {"code": "en_US"}}},
        ),
        (
            Piece(text="yes", quote=WAMID),
            {"type": "text", "text": {"body": "yes"}, "context": {"message_id": WAMID}},
        ),
        (
            Piece(raw={"type": "location", "location": {"latitude": 1}, "to": "666", "biz_opaque_callback_data": "x"}),
            {"type": "location", "location": {"latitude": 1}},
        ),
    ],
    ids=["buttons", "a picture", "a file", "a voice note", "a template", "a quote", "raw"],
)
def test_each_content_has_its_form(piece: Piece, content: JsonObject) -> None:
    [only] = META.pieces(piece)
    assert body_of(outgoing(only)) == {**ALWAYS, "recipient_type": "individual", "to": "4915550100", **content}


@pytest.mark.parametrize(
    "titles",
    [("a", "b", "c", "d"), ("a title of 21 letters",), ("same", "same"), ("",)],
    ids=["four", "long", "twice", "empty"],
)
def test_buttons_that_whatsapp_has_not_become_a_numbered_list(titles: tuple[str, ...]) -> None:
    [piece] = META.pieces(Piece(text="?", buttons=tuple(Button(id=str(n), title=one) for n, one in enumerate(titles))))
    assert piece == Piece(text="?\n\n" + "\n".join(f"{n}. {one}" for n, one in enumerate(titles, 1)))


@pytest.mark.parametrize(
    "said",
    [
        Piece(media=(Attachment(),)),
        Piece(text="x", template={"name": "t"}),
        Piece(buttons=(Button(id="y", title="Yes"),)),
    ],
    ids=["media without a place", "a template with a text", "buttons without a text"],
)
def test_what_has_no_form_is_refused_at_commit(said: Piece) -> None:
    with pytest.raises(Unsendable) as refused:
        META.pieces(said)
    assert refused.value.word is Word.BAD_CONTENT


def test_an_answer_with_an_id_is_accepted() -> None:
    content = {"contacts": [{"input": "1", "wa_id": "1"}], "messages": [{"id": WAMID, "message_status": "accepted"}]}
    assert judged(200, content) == Verdict(Outcome.ACCEPTED, provider_id=WAMID)
    held = {"messages": [{"id": WAMID, "message_status": "held_for_quality_assessment"}]}
    assert judged(200, held).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"messages": []},
        {"messages": [{}]},
        {"messages": [{"id": 7}]},
        {"messages": [{"id": ""}]},
        error(131047),
        [],
    ],
)
def test_a_success_without_an_id_is_unknown(content: Any) -> None:
    assert judged(200, content).outcome is Outcome.UNKNOWN


ROWS = [
    ([131056], Outcome.NOT_NOW, Word.LIMIT, Scope.USER, False),
    ([130429, 4, 80007], Outcome.NOT_NOW, Word.LIMIT, Scope.CHANNEL, False),
    ([131048, 131064, 368, 131031, 131042, 131045, 131037], Outcome.BROKEN, Word.ACCOUNT, Scope.CHANNEL, False),
    ([131000, 131016, 131057, 133004, 2], Outcome.NOT_NOW, Word.AWAY, Scope.USER, True),
    ([131047], Outcome.NEVER, Word.WINDOW_CLOSED, Scope.USER, True),
    (
        [131026, 131021, 131030, 131062, 130472, 131049, 131050, 130497],
        *(Outcome.NEVER, Word.UNREACHABLE, Scope.USER, True),
    ),
    ([131051, 131008, 131009, 100, 131053, *range(132000, 132100)], Outcome.NEVER, Word.BAD_CONTENT, Scope.USER, True),
    ([0, 3, 10, 190, *range(200, 300), 131005], Outcome.BROKEN, Word.DENIED, Scope.CHANNEL, False),
]


def test_the_rows_are_the_whole_table() -> None:
    assert {str(code) for codes, *_ in ROWS for code in codes} == set(CODES)
    assert {CODES[code].certainty for code in ("133004", "2", "131047")} == set(Certainty) - {Certainty.MEASURED}


@pytest.mark.parametrize(("codes", "outcome", "word", "scope", "counts"), ROWS, ids=lambda value: str(value)[:20])
def test_each_code_has_its_class(codes: list[int], outcome: Outcome, word: Word, scope: Scope, counts: bool) -> None:
    for code in codes:
        for status in (400, 500):
            found = judged(status, error(code))
            assert (found.outcome, found.word, found.scope, found.counts) == (outcome, word, scope, counts)
            assert found.code == str(code)
        assert META.word_of(str(code)) is word


def test_the_pair_limit_waits_longer_each_time() -> None:
    waits = [judged(400, error(131056), attempt).wait_s for attempt in range(1, 10)]
    assert waits == [1, 4, 16, 64, 256, 1_024, 4_096, 4_096, 4_096]


def test_a_number_that_the_token_may_not_see_breaks_the_channel_and_refuses_no_reply() -> None:
    found = judged(400, error(100, error_subcode=33))
    assert (found.outcome, found.word) == (Outcome.BROKEN, Word.DENIED)
    assert judged(400, error(100, error_subcode=34)).outcome is Outcome.NEVER


def test_an_error_that_calls_itself_transient_may_be_sent_later() -> None:
    assert judged(500, error(999, is_transient=True)).outcome is Outcome.NOT_NOW
    assert judged(500, error(131047, is_transient=True)).outcome is Outcome.NEVER


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, {}),
        (503, "down"),
        (400, error(999)),
        (400, error("131047")),
        (400, error(True)),
        (400, error(None)),
        (302, error(131047)),
        (401, {}),
        (400, error(999, is_transient="true")),
    ],
)
def test_anything_else_is_unknown(status: int, content: Any) -> None:
    assert judged(status, content).outcome is Outcome.UNKNOWN


def test_too_many_requests_wait_as_long_as_it_says() -> None:
    verdict = META.judge(outgoing(), Response(429, {"retry-after": "9"}, b"<html>"))
    assert (verdict.outcome, verdict.scope, verdict.wait_s) == (Outcome.NOT_NOW, Scope.CHANNEL, 9)


def test_read_and_typing_are_one_call() -> None:
    seen, typing = (META.presence(Sign(kind, WAMID, route=ROUTE)) for kind in SignKind)
    assert seen
    assert typing
    read = {"messaging_product": "whatsapp", "status": "read", "message_id": WAMID}
    assert json.loads(seen.body) == read
    assert json.loads(typing.body) == {**read, "typing_indicator": {"type": "text"}}
    assert (typing.method, typing.url) == ("POST", ADDRESS)
    assert META.presence(Sign(SignKind.SEEN, WAMID)) is None


def test_nobody_can_be_asked_but_statuses_bring_the_key_back() -> None:
    assert META.look_up(outgoing(), SINCE, {}) is None
    assert META.on_unknown is OnUnknown.ASK
    assert META.window_s(("1",)) == 86_400
