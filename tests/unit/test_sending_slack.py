import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import pytest

from onelane.channels.sender import OnUnknown
from onelane.channels.sending import Outgoing, Piece, Request, Sign, SignKind
from onelane.channels.slack.codes import CODES
from onelane.channels.verdicts import Outcome, Response, Scope, Unsendable, Verdict, Word
from onelane.model import Attachment, AttachmentKind, Button, JsonObject
from tests.unit.test_sending import sender_of

SLACK = sender_of("slack")
KEY = UUID(int=16)
API = "https://slack.com/api"
THREAD = {"channel": "C1", "thread_ts": "1764158400.000100", "team": "T1"}
DIRECT = {"channel": "D1", "team": "T1"}
TS = "1764158401.000200"
SINCE = datetime(2026, 11, 26, 12, tzinfo=UTC)
METADATA = {"event_type": "onelane_reply", "event_payload": {"key": str(KEY)}}
ALWAYS = {"channel": "D1", "client_msg_id": str(KEY), "metadata": METADATA}
BEARER = {"Authorization": "Bearer xoxb-tokenOfSlack0123"}


def outgoing(piece: Piece | str = "hello", route: JsonObject | None = DIRECT, to: tuple[str, ...] = ()) -> Outgoing:
    return Outgoing(KEY, to, Piece(text=piece) if isinstance(piece, str) else piece, route)


def judged(content: Any, status: int = 200, route: JsonObject | None = DIRECT) -> Verdict:
    return SLACK.judge(outgoing(route=route), Response(status, {}, json.dumps(content).encode()))


def test_a_text_is_one_post_with_the_replys_id_twice() -> None:
    request = SLACK.request(outgoing(route=THREAD))
    assert (request.name, request.method, request.url) == ("chat.postMessage", "POST", f"{API}/chat.postMessage")
    assert request.headers == {"Content-Type": "application/json; charset=utf-8", **BEARER}
    assert json.loads(request.body) == {
        "channel": "C1",
        "thread_ts": "1764158400.000100",
        "text": "hello",
        "client_msg_id": str(KEY),
        "metadata": METADATA,
    }


@pytest.mark.parametrize(
    ("route", "to", "channel"),
    [
        (None, ("T1:U1", "D1"), "D1"),
        (None, ("T1:U1",), "U1"),
        ({}, ("T1:U1", "C1:1.2"), "C1"),
        ({}, ("C1:U1",), "C1"),
        ({}, ("nobody", "T1:W1"), "W1"),
        ({"channel": "U7"}, ("T1:U1",), "U7"),
    ],
)
def test_the_channel_is_the_routes_else_a_direct_one_else_the_persons(route: Any, to: Any, channel: str) -> None:
    assert json.loads(SLACK.request(outgoing(route=route, to=to)).body)["channel"] == channel


def test_a_threads_own_alias_names_the_thread() -> None:
    body = json.loads(SLACK.request(outgoing(route=None, to=("C1:1.2",))).body)
    assert (body["channel"], body["thread_ts"]) == ("C1", "1.2")


def test_without_a_channel_and_a_person_there_is_no_route() -> None:
    with pytest.raises(Unsendable) as refused:
        SLACK.request(outgoing(route=None, to=("nobody",)))
    assert refused.value.word is Word.NO_ROUTE


SECTION = {"type": "section", "text": {"type": "mrkdwn", "text": "Sure?"}}


@pytest.mark.parametrize(
    ("piece", "content"),
    [
        (Piece(text="1 < 2 & <@U1>"), {"text": "1 &lt; 2 &amp; &lt;@U1&gt;"}),
        (
            Piece(text="Sure?", buttons=(Button(id="y", title="Yes"), Button(id="n", title="No & never"))),
            {
                "text": "Sure?",
                "blocks": [
                    SECTION,
                    {
                        "type": "actions",
                        "elements": [
                            {
                                "type": "button",
                                "action_id": "button-1",
                                "text": {"type": "plain_text", "text": "Yes"},
                                "value": "y",
                            },
                            {
                                "type": "button",
                                "action_id": "button-2",
                                "text": {"type": "plain_text", "text": "No & never"},
                                "value": "n",
                            },
                        ],
                    },
                ],
            },
        ),
        (
            Piece(text="Sure?", media=(Attachment(url="https://bot.example/1.png", kind=AttachmentKind.IMAGE),)),
            {
                "text": "Sure?",
                "blocks": [{"type": "image", "image_url": "https://bot.example/1.png", "alt_text": "image"}, SECTION],
            },
        ),
        (
            Piece(media=(Attachment(id="F1", kind=AttachmentKind.IMAGE, name="cat"),)),
            {"text": "cat", "blocks": [{"type": "image", "slack_file": {"id": "F1"}, "alt_text": "cat"}]},
        ),
        (
            Piece(media=(Attachment(url="https://bot.example/a|b?c&d", name="bill > 1 | 2"),)),
            {"text": "<https://bot.example/a%7Cb?c&amp;d|bill &gt; 1   2>"},
        ),
        (Piece(text="yes", quote=f"T1:D1:{TS}"), {"text": "yes", "thread_ts": TS}),
        (Piece(text="yes", quote="Ev1"), {"text": "yes"}),
        (
            Piece(text="x", raw={"unfurl_links": False, "channel": "C6", "metadata": {}}),
            {"text": "x", "unfurl_links": False},
        ),
    ],
    ids=["escapes", "buttons", "a picture", "a picture by id", "a file", "a quote", "a quote of an event", "raw"],
)
def test_each_content_has_its_form(piece: Piece, content: JsonObject) -> None:
    [only] = SLACK.pieces(piece)
    assert json.loads(SLACK.request(outgoing(only)).body) == {**ALWAYS, **content}


def test_a_text_is_counted_as_it_is_sent() -> None:
    pieces = SLACK.pieces(Piece(text="&" * 1_601))
    assert [len(piece.text) for piece in pieces] == [800, 800, 1]


@pytest.mark.parametrize(
    "buttons",
    [
        tuple(Button(id=str(n), title="x") for n in range(26)),
        (Button(id="y", title="x" * 76),),
        (Button(id="y" * 2_001, title="x"),),
    ],
    ids=["26", "a long title", "a long id"],
)
def test_buttons_that_slack_has_not_become_a_numbered_list(buttons: tuple[Button, ...]) -> None:
    [piece] = SLACK.pieces(Piece(text="?", buttons=buttons))
    assert not piece.buttons
    assert piece.text.startswith("?\n\n1. x")


@pytest.mark.parametrize("said", [Piece(template={"name": "x"}), Piece(media=(Attachment(id="F1"),))])
def test_what_has_no_form_is_refused_at_commit(said: Piece) -> None:
    with pytest.raises(Unsendable):
        SLACK.pieces(said)


def test_an_accepted_post_is_named_as_webhooks_name_it() -> None:
    verdict = judged({"ok": True, "channel": "D1", "ts": TS})
    assert verdict == Verdict(Outcome.ACCEPTED, provider_id=f"T1:D1:{TS}")


@pytest.mark.parametrize(
    "content", [{}, [], {"ok": True}, {"ok": 1, "channel": "D1", "ts": TS}, {"ok": True, "ts": TS}]
)
def test_a_success_without_a_ts_is_unknown(content: Any) -> None:
    assert judged(content).outcome is Outcome.UNKNOWN


ROWS = [
    (["ratelimited", "rate_limited", "message_limit_exceeded"], Outcome.NOT_NOW, Word.LIMIT, Scope.CHANNEL),
    (
        ["fatal_error", "internal_error", "request_timeout", "service_unavailable"],
        *(Outcome.UNKNOWN, Word.UNCLEAR, Scope.USER),
    ),
    (["duplicate_message_not_found", "duplicate_channel_not_found"], Outcome.UNKNOWN, Word.UNCLEAR, Scope.USER),
    (
        ["channel_not_found", "is_archived", "not_in_channel", "restricted_action*", "messages_tab_disabled"],
        *(Outcome.NEVER, Word.UNREACHABLE, Scope.USER),
    ),
    (
        ["msg_too_long", "no_text", "invalid_blocks*", "msg_blocks_too_long", "metadata_too_large"],
        *(Outcome.NEVER, Word.BAD_CONTENT, Scope.USER),
    ),
    (
        ["invalid_auth", "not_authed", "token_*", "missing_scope", "ekm_access_denied"],
        *(Outcome.BROKEN, Word.DENIED, Scope.CHANNEL),
    ),
    (["account_inactive"], Outcome.BROKEN, Word.ACCOUNT, Scope.CHANNEL),
]


def test_the_rows_are_the_whole_table() -> None:
    assert {code for codes, *_ in ROWS for code in codes} == set(CODES)


@pytest.mark.parametrize(("codes", "outcome", "word", "scope"), ROWS, ids=lambda value: str(value)[:30])
def test_each_error_has_its_class(codes: list[str], outcome: Outcome, word: Word, scope: Scope) -> None:
    for code in codes:
        for error in {code.replace("*", ""), code.replace("*", "_x")}:
            found = judged({"ok": False, "error": error})
            assert (found.outcome, found.word, found.scope, found.code) == (outcome, word, scope, error)
            assert SLACK.word_of(error) is word


def test_too_many_requests_wait_as_long_as_it_says() -> None:
    for body in (b"", b'{"ok": false, "error": "ratelimited"}'):
        verdict = SLACK.judge(outgoing(), Response(429, {"retry-after": "30"}, body))
        assert (verdict.outcome, verdict.scope, verdict.wait_s) == (Outcome.NOT_NOW, Scope.CHANNEL, 30)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        *((500, {}), (503, "down"), (200, {"ok": False, "error": "new_error"}), (200, {"ok": False})),
        *((200, {"ok": None, "error": "no_text"}), (400, {"ok": False, "error": "no_text"}), (302, {})),
        *((200, {"ok": False, "error": ["no_text"]}), (200, "<html>")),
    ],
)
def test_anything_else_is_unknown(status: int, content: Any) -> None:
    assert judged(content, status).outcome is Outcome.UNKNOWN


def looked_up(*pages: Any, route: JsonObject | None = THREAD) -> tuple[list[Request], Verdict]:
    """Answer each request with the next page."""
    steps = SLACK.look_up(outgoing(route=route), SINCE, {})
    assert steps is not None
    requests = [next(steps)]
    for page in pages:
        status, content = page if isinstance(page, tuple) else (200, page)
        try:
            requests.append(steps.send(Response(status, {}, json.dumps(content).encode())))
        except StopIteration as end:
            return requests, end.value
    raise AssertionError("the look-up does not end")


def page(*messages: Any, cursor: str = "", **more: Any) -> JsonObject:
    following = {"response_metadata": {"next_cursor": cursor}} if cursor else {}
    return {"ok": True, "messages": list(messages), "has_more": bool(cursor), **following, **more}


@pytest.mark.parametrize(
    ("route", "method", "where"),
    [
        (THREAD, "conversations.replies", {"channel": "C1", "ts": THREAD["thread_ts"]}),
        (DIRECT, "conversations.history", {"channel": "D1"}),
    ],
    ids=["a thread", "a direct channel"],
)
def test_a_thread_or_a_channel_is_read_since_then(route: JsonObject, method: str, where: JsonObject) -> None:
    [first, second], _verdict = looked_up(page(cursor="c2"), page(), route=route)
    common = {"oldest": "1795694370.000000", "inclusive": "true", "include_all_metadata": "true", "limit": "100"}
    assert (first.name, first.method, first.url.partition("?")[0]) == (method, "GET", f"{API}/{method}")
    assert dict(parse_qsl(urlsplit(first.url).query)) == {**where, **common}
    assert dict(parse_qsl(urlsplit(second.url).query)) == {**where, **common, "cursor": "c2"}
    assert first.headers == BEARER


ABSENT = Verdict(Outcome.NOT_NOW, Word.ABSENT)
UNKNOWN = Verdict(Outcome.UNKNOWN, Word.UNCLEAR)
THERE = Verdict(Outcome.ACCEPTED, provider_id=f"T1:C1:{TS}")
OTHER = {"ts": "1.5", "text": "hello", "client_msg_id": str(UUID(int=17))}


@pytest.mark.parametrize(
    ("pages", "verdict"),
    [
        ([page()], ABSENT),
        ([page(OTHER, "nonsense", {"metadata": []})], ABSENT),
        ([page(OTHER, {"ts": TS, "metadata": METADATA})], THERE),
        ([page({"ts": TS, "client_msg_id": str(KEY)})], THERE),
        ([page({"ts": TS, "metadata": {**METADATA, "event_type": "other"}})], ABSENT),
        ([page(OTHER, cursor="c2"), page({"ts": TS, "metadata": METADATA})], THERE),
        ([page(OTHER, cursor="c")] * 5, UNKNOWN),
        ([page(has_more=True)], UNKNOWN),
        ([page({"metadata": METADATA})], UNKNOWN),
        ([{"ok": False, "error": "missing_scope"}], Verdict(Outcome.UNKNOWN, Word.UNCLEAR, "missing_scope")),
        ([(429, {})], Verdict(Outcome.UNKNOWN, Word.UNCLEAR, "429")),
        ([{"ok": True}], Verdict(Outcome.UNKNOWN, Word.UNCLEAR, "200")),
    ],
    ids=[
        *("empty", "others", "by metadata", "by client_msg_id", "another event", "second page", "too many pages"),
        *("more without a cursor", "without a ts", "no right to read", "a limit", "no list"),
    ],
)
def test_a_look_up_proves_presence_or_absence_or_nothing(pages: list[Any], verdict: Verdict) -> None:
    _requests, found = looked_up(*pages)
    assert found == verdict


def test_a_person_named_in_place_of_a_channel_has_no_history() -> None:
    assert SLACK.look_up(outgoing(route=None, to=("T1:U1",)), SINCE, {}) is None
    assert SLACK.look_up(outgoing(route=None, to=()), SINCE, {}) is None
    assert SLACK.on_unknown is OnUnknown.ASK


def test_a_thread_shows_that_the_app_is_thinking() -> None:
    request = SLACK.presence(Sign(SignKind.TYPING, f"T1:C1:{TS}", route=THREAD))
    assert request
    assert (request.method, request.url) == ("POST", f"{API}/assistant.threads.setStatus")
    assert json.loads(request.body) == {
        "channel_id": "C1",
        "thread_ts": "1764158400.000100",
        "status": "is thinking…",
    }
    assert SLACK.presence(Sign(SignKind.TYPING, f"T1:D1:{TS}", route=DIRECT)) is None
    assert SLACK.presence(Sign(SignKind.SEEN, f"T1:C1:{TS}", route=THREAD)) is None
