import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from onelane.channels.sender import OnUnknown
from onelane.channels.sending import Outgoing, Piece, Sign, SignKind
from onelane.channels.telegram.codes import CODES
from onelane.channels.verdicts import Outcome, Response, Scope, Unsendable, Verdict, Word
from onelane.model import Attachment, AttachmentKind, Button, JsonObject
from tests.unit.test_sending import sender_of

TELEGRAM = sender_of("telegram")
KEY = UUID(int=16)
API = "https://api.telegram.org/bot123456:tokenOfTelegram0123"
ROUTE = {"chat_id": -100, "message_thread_id": 3}


def outgoing(piece: Piece | str = "hello", route: JsonObject | None = ROUTE, to: tuple[str, ...] = ()) -> Outgoing:
    return Outgoing(KEY, to, Piece(text=piece) if isinstance(piece, str) else piece, route)


def body_of(out: Outgoing) -> Any:
    return json.loads(TELEGRAM.request(out).body)


def judged(status: int, content: Any, route: JsonObject | None = ROUTE) -> Verdict:
    return TELEGRAM.judge(outgoing(route=route), Response(status, {}, json.dumps(content).encode()))


def error(code: Any, description: str = "no", **parameters: Any) -> JsonObject:
    return {"ok": False, "error_code": code, "description": description, "parameters": parameters}


def test_a_text_is_one_call_in_the_place_of_the_route() -> None:
    request = TELEGRAM.request(outgoing(route={**ROUTE, "callback_query_id": "9", "inline_message_id": "8"}))
    assert (request.name, request.method, request.url) == ("sendMessage", "POST", f"{API}/sendMessage")
    assert request.headers == {"Content-Type": "application/json"}
    assert json.loads(request.body) == {"text": "hello", **ROUTE}


@pytest.mark.parametrize(
    ("route", "to", "place"),
    [
        (
            {"chat_id": 5, "business_connection_id": "b", "direct_messages_topic_id": 4},
            *((), {"chat_id": 5, "business_connection_id": "b", "direct_messages_topic_id": 4}),
        ),
        (None, ("name", "5"), {"chat_id": 5}),
        ({}, ("-100",), {"chat_id": -100}),
    ],
)
def test_without_a_route_an_alias_names_the_chat(route: JsonObject | None, to: tuple[str, ...], place: Any) -> None:
    assert body_of(outgoing(route=route, to=to)) == {"text": "hello", **place}


@pytest.mark.parametrize(("route", "to"), [(None, ()), ({"guest_query_id": "7"}, ("5",)), ({}, ("business:b:5",))])
def test_where_the_bot_may_not_write_there_is_no_route(route: JsonObject | None, to: tuple[str, ...]) -> None:
    with pytest.raises(Unsendable) as refused:
        TELEGRAM.request(outgoing(route=route, to=to))
    assert refused.value.word is Word.NO_ROUTE


@pytest.mark.parametrize(
    ("piece", "method", "content"),
    [
        (
            Piece(text="Sure?", buttons=(Button(id="y", title="Yes"), Button(id="n", title="No"))),
            "sendMessage",
            {
                "text": "Sure?",
                "reply_markup": {
                    "inline_keyboard": [
                        [{"text": "Yes", "callback_data": "y"}],
                        [{"text": "No", "callback_data": "n"}],
                    ]
                },
            },
        ),
        (
            Piece(text="look", media=(Attachment(url="https://bot.example/1.png", kind=AttachmentKind.IMAGE),)),
            "sendPhoto",
            {"photo": "https://bot.example/1.png", "caption": "look"},
        ),
        (Piece(media=(Attachment(id="F1", kind=AttachmentKind.VOICE),)), "sendVoice", {"voice": "F1"}),
        (Piece(media=(Attachment(id="F1"),)), "sendDocument", {"document": "F1"}),
        (Piece(media=(Attachment(id="F1", kind=AttachmentKind.STICKER),)), "sendSticker", {"sticker": "F1"}),
        (Piece(media=(Attachment(id="F1", kind=AttachmentKind.VIDEO),)), "sendVideo", {"video": "F1"}),
        (Piece(media=(Attachment(id="F1", kind=AttachmentKind.AUDIO),)), "sendAudio", {"audio": "F1"}),
        (
            Piece(text="yes", quote="-100:7"),
            "sendMessage",
            {"text": "yes", "reply_parameters": {"message_id": 7, "allow_sending_without_reply": True}},
        ),
        (Piece(text="yes", quote="-200:7"), "sendMessage", {"text": "yes"}),
        (Piece(text="yes", quote="1234"), "sendMessage", {"text": "yes"}),
        (
            Piece(raw={"method": "sendLocation", "latitude": 1, "chat_id": 666}),
            "sendLocation",
            {"latitude": 1},
        ),
        (
            Piece(text="x", raw={"method": "../getMe", "protect_content": True}),
            "sendMessage",
            {"text": "x", "protect_content": True},
        ),
    ],
    ids=[
        *("buttons", "a picture", "a voice note", "a file", "a sticker", "a video", "audio"),
        *("a quote", "a quote of another chat", "a quote by update", "raw with a method", "raw with another's method"),
    ],
)
def test_each_content_has_its_call(piece: Piece, method: str, content: JsonObject) -> None:
    [only] = TELEGRAM.pieces(piece)
    request = TELEGRAM.request(outgoing(only))
    assert (request.name, request.url) == (method, f"{API}/{method}")
    assert json.loads(request.body) == {**content, **ROUTE}


@pytest.mark.parametrize(("id_", "is_native"), [("y" * 64, True), ("y" * 65, False), ("é" * 33, False), ("", False)])
def test_buttons_whose_ids_do_not_fit_become_a_numbered_list(id_: str, is_native: bool) -> None:
    [piece] = TELEGRAM.pieces(Piece(text="?", buttons=(Button(id=id_, title="Yes"),)))
    assert bool(piece.buttons) is is_native
    assert piece.text == ("?" if is_native else "?\n\n1. Yes")


@pytest.mark.parametrize("said", [Piece(media=(Attachment(),)), Piece(template={"name": "x"})])
def test_what_has_no_form_is_refused_at_commit(said: Piece) -> None:
    with pytest.raises(Unsendable):
        TELEGRAM.pieces(said)


def test_an_accepted_message_is_named_as_webhooks_name_it() -> None:
    content = {"ok": True, "result": {"message_id": 7, "chat": {"id": -100}}}
    assert judged(200, content) == Verdict(Outcome.ACCEPTED, provider_id="-100:7")
    business = judged(200, content, {"chat_id": -100, "business_connection_id": "b"})
    assert business.provider_id == "b:-100:7"


@pytest.mark.parametrize(
    "content",
    [
        *({}, [], {"ok": True}, {"ok": True, "result": True}, {"ok": "true", "result": {"message_id": 7}}),
        *({"ok": True, "result": {"message_id": True, "chat": {"id": 5}}}, {"ok": True, "result": {"message_id": 7}}),
        *({"ok": True, "result": {"message_id": 0, "chat": {"id": 5}}}, error(403)),
    ],
)
def test_a_success_without_a_message_is_unknown(content: Any) -> None:
    assert judged(200, content).outcome is Outcome.UNKNOWN


ROWS = [
    (429, "Too Many Requests: retry after 7", Outcome.NOT_NOW, Word.LIMIT, Scope.USER),
    (403, "Forbidden: bot was blocked by the user", Outcome.NEVER, Word.BLOCKED, Scope.USER),
    (400, "Bad Request: chat not found", Outcome.NEVER, Word.UNREACHABLE, Scope.USER),
    (400, "Bad Request: message is too long", Outcome.NEVER, Word.TOO_LONG, Scope.USER),
    (400, "Bad Request: message caption is too long", Outcome.NEVER, Word.TOO_LONG, Scope.USER),
    (400, "Bad Request: message text is empty", Outcome.NEVER, Word.BAD_CONTENT, Scope.USER),
    (404, "Not Found: method not found", Outcome.NEVER, Word.BAD_CONTENT, Scope.USER),
    (401, "Unauthorized", Outcome.BROKEN, Word.DENIED, Scope.CHANNEL),
    (404, "Not Found", Outcome.BROKEN, Word.DENIED, Scope.CHANNEL),
]


def test_the_rows_are_the_whole_table() -> None:
    assert {str(code) for code, *_ in ROWS} == set(CODES)


@pytest.mark.parametrize(("code", "description", "outcome", "word", "scope"), ROWS, ids=lambda value: str(value)[:30])
def test_each_code_has_its_class(code: int, description: str, outcome: Outcome, word: Word, scope: Scope) -> None:
    found = judged(code, error(code, description))
    assert (found.outcome, found.word, found.scope, found.code) == (outcome, word, scope, str(code))
    assert TELEGRAM.word_of(str(code)) is CODES[str(code)].word


def test_a_limit_waits_as_long_as_it_says_and_is_no_attempt() -> None:
    verdict = judged(429, error(429, retry_after=35))
    assert (verdict.wait_s, verdict.counts) == (35, False)
    bare = TELEGRAM.judge(outgoing(), Response(429, {"retry-after": "4"}, b"<html>"))
    assert (bare.outcome, bare.wait_s, bare.scope) == (Outcome.NOT_NOW, 4, Scope.USER)


def test_a_group_that_moved_is_written_to_at_its_new_number() -> None:
    verdict = judged(400, error(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-1_001))
    assert (verdict.outcome, verdict.word, verdict.wait_s, verdict.counts) == (Outcome.NOT_NOW, Word.MOVED, 0, False)
    assert verdict.route == {**ROUTE, "chat_id": -1_001}


@pytest.mark.parametrize(
    ("status", "content"),
    [
        *((500, error(500)), (502, "down"), (409, error(409)), (400, {}), (401, {"ok": True}), (302, error(403))),
        *((400, error("400")), (400, error(True)), (404, "<html>"), (413, error(413))),
    ],
)
def test_anything_else_is_unknown(status: int, content: Any) -> None:
    assert judged(status, content).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("kind", "message_id", "route", "method", "content"),
    [
        (SignKind.TYPING, "5:7", ROUTE, "sendChatAction", {**ROUTE, "action": "typing"}),
        (
            *(SignKind.TYPING, "5:7", {"chat_id": 5, "direct_messages_topic_id": 4}, "sendChatAction"),
            {"chat_id": 5, "action": "typing"},
        ),
        (
            *(SignKind.SEEN, "b:5:7", {"chat_id": 5, "business_connection_id": "b"}, "readBusinessMessage"),
            {"business_connection_id": "b", "chat_id": 5, "message_id": 7},
        ),
    ],
    ids=["typing", "typing in a topic of direct messages", "a business chat"],
)
def test_each_sign_has_its_call(kind: SignKind, message_id: str, route: JsonObject, method: str, content: Any) -> None:
    request = TELEGRAM.presence(Sign(kind, message_id, route=route))
    assert request
    assert (request.method, request.url, json.loads(request.body)) == ("POST", f"{API}/{method}", content)


@pytest.mark.parametrize("where", [{"chat_id": 5}, {"inline_message_id": "8"}], ids=["in a chat", "anywhere"])
def test_a_pressed_button_waits_no_longer(where: JsonObject) -> None:
    request = TELEGRAM.acknowledge({**where, "callback_query_id": "9"})
    assert request
    assert (request.url, json.loads(request.body)) == (f"{API}/answerCallbackQuery", {"callback_query_id": "9"})
    assert TELEGRAM.acknowledge(where) is TELEGRAM.acknowledge(None) is None


def test_bots_mark_nothing_else_as_read() -> None:
    assert TELEGRAM.presence(Sign(SignKind.SEEN, "5:7", route={"chat_id": 5, "callback_query_id": "9"})) is None
    assert TELEGRAM.presence(Sign(SignKind.SEEN, "5:7", route={"chat_id": 5})) is None
    assert TELEGRAM.presence(Sign(SignKind.TYPING, "5:7")) is None


def test_nobody_can_be_asked_so_an_unknown_reply_is_left() -> None:
    assert TELEGRAM.look_up(outgoing(), datetime.now(UTC), {}) is None
    assert TELEGRAM.on_unknown is OnUnknown.LEAVE
    assert TELEGRAM.window_s(("5",)) is None
