"""What all providers' sending sides have in common: pieces, splitting, verdicts, and what nobody may see."""

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import httpx2
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from onelane.channels import provider_of
from onelane.channels.sender import Sender
from onelane.channels.sending import Outgoing, Piece, Sign, SignKind
from onelane.channels.splitting import split, utf16
from onelane.channels.verdicts import (
    ERRORS,
    Certainty,
    Outcome,
    Response,
    Scope,
    Unsendable,
    Verdict,
    Word,
    code_of,
    judge_error,
    never,
    table,
)
from onelane.config import Channel
from onelane.model import Attachment, AttachmentKind, Button

TOKENS: Final[Mapping[str, dict[str, Any]]] = {
    "meta": {"access_token": "EAAGtokenOfMeta0123"},
    "slack": {"bot_token": "xoxb-tokenOfSlack0123"},
    "telegram": {"bot_token": "123456:tokenOfTelegram0123"},
    "twilio": {"account_sid": f"AC{'0' * 32}"},
    "standard": {"reply_url": "https://bot.example/replies"},
}
ROUTES: Final[Mapping[str, dict[str, Any] | None]] = {
    "meta": {"phone_number_id": "100", "to": "4915550100"},
    "slack": {"channel": "C1", "thread_ts": "1.2", "team": "T1"},
    "telegram": {"chat_id": 5},
    "twilio": {"from": "+15550100"},
    "standard": {},
}
SECRET: Final = "whsec_c2VjcmV0LW9mLXNpeHRlZW4tYnl0ZXM="
KEY: Final = UUID(int=16)
FAMILY, FLAG, ACCENTED, HEBREW, CONJUNCT = "👨‍👩‍👧‍👦", "🇩🇪", "e\u0301\u0323", "שלום\u05bc ", "क्षि"
LETTERS: Final = st.sampled_from(
    [
        FAMILY,
        FLAG,
        ACCENTED,
        HEBREW,
        CONJUNCT,
        "👍🏽",
        "\r\n",
        "\n\n",
        "\u202b\u0645\u0631\u062d\u0628\u0627\u202c",
        "a b",
        "x",
        "&",
        "<",
    ]
)
TEXTS: Final = st.one_of(st.lists(LETTERS, max_size=60).map("".join), st.text(max_size=80))
JSON_VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def sender_of(name: str, **own: Any) -> Sender:
    secret = SECRET if name == "standard" else "secret-of-sixteen-letters"
    sender = provider_of(Channel(provider=name, secrets=(secret,), **{**TOKENS[name], **own})).sender
    assert sender is not None
    return sender


def outgoing(name: str, piece: Piece, **more: Any) -> Outgoing:
    return Outgoing(KEY, ("4915550100",), piece, **{"route": ROUTES[name], **more})


SENDERS: Final = {name: sender_of(name) for name in TOKENS}
every = pytest.mark.parametrize("name", sorted(TOKENS))


def test_a_channel_without_a_token_sends_nothing() -> None:
    for name in TOKENS:
        secret = SECRET if name == "standard" else "secret-of-sixteen-letters"
        assert provider_of(Channel(provider=name, secrets=(secret,))).sender is None


@given(text=TEXTS, size_max=st.integers(1, 40))
@settings(deadline=None)
def test_parts_are_the_text_within_the_limit_and_cut_no_letter(text: str, size_max: int) -> None:
    parts = split(text, size_max)
    letters = regex.findall(r"\X", text)
    bounds, at = {0}, 0
    for letter in letters:
        at += len(letter)
        bounds.add(at)
    assert "".join(parts) == text
    cuts, at = [], 0
    for part in parts[:-1]:
        at += len(part)
        cuts.append(at)
    whole = all(utf16(letter) <= size_max for letter in letters)
    assert all(utf16(part) <= max(size_max, 2) for part in parts)
    if whole:
        assert all(utf16(part) <= size_max for part in parts)
        assert set(cuts) <= bounds
    assert all(parts) or parts == [""]


@pytest.mark.parametrize(
    ("text", "size_max", "parts"),
    [
        ("one two three", 8, ["one two ", "three"]),
        ("one.\n\ntwo three four", 10, ["one.\n\n", "two three ", "four"]),
        ("abcdefgh\nij kl", 12, ["abcdefgh\n", "ij kl"]),
        ("a bcdefghij", 8, ["a bcdefg", "hij"]),
        (FAMILY * 3, 11, [FAMILY] * 3),
        (FLAG * 3, 9, [FLAG * 2, FLAG]),
        (ACCENTED * 3, 7, [ACCENTED * 2, ACCENTED]),
        ("x" + "\u0301" * 5, 4, ["x" + "\u0301" * 3, "\u0301" * 2]),
        ("one.\r\n\r\ntwo three", 16, ["one.\r\n\r\n", "two three"]),
        (f"ab cd{FAMILY}", 12, ["ab ", "cd", FAMILY]),
        ("abcd \u0301efgh", 8, ["abcd \u0301ef", "gh"]),
    ],
    ids=[
        *("words", "paragraphs", "lines", "a long word", "families", "flags", "accents", "one huge letter", "Windows"),
        *("a large letter after a break", "a blank with an accent"),
    ],
)
def test_a_text_is_cut_where_a_reader_pauses(text: str, size_max: int, parts: list[str]) -> None:
    assert split(text, size_max) == parts


@every
@given(text=TEXTS, copies=st.integers(1, 400))
@settings(deadline=None, max_examples=25)
def test_every_piece_is_within_the_providers_limit_and_no_text_is_lost(name: str, text: str, copies: int) -> None:
    sender, said = SENDERS[name], text * copies
    if not said.strip() or sender.size(said) > sender.text_max * 40:
        return
    pieces = sender.pieces(Piece(text=said))
    assert all(sender.size(piece.text) <= sender.text_max for piece in pieces)
    assert all(piece.text.strip() for piece in pieces) or name == "standard"
    assert "".join("".join(piece.text for piece in pieces).split()) == "".join(said.split())


@every
def test_a_long_text_with_buttons_has_them_below_its_last_piece(name: str) -> None:
    sender, buttons = SENDERS[name], (Button(id="y", title="Yes"), Button(id="n", title="No"))
    pieces = sender.pieces(Piece(text="word " * 2_000, buttons=buttons, quote="5:7"))
    assert [piece.quote for piece in pieces] == ["5:7"] + [None] * (len(pieces) - 1)
    assert not any(piece.buttons for piece in pieces[:-1])
    if pieces[-1].buttons:
        assert sender.size(pieces[-1].text) <= sender.buttoned_max
    else:
        assert pieces[-1].text.endswith("\n\n1. Yes\n2. No")


def test_buttons_stand_below_a_text_that_ends_in_blanks() -> None:
    buttons = (Button(id="y", title="Yes"),)
    pieces = SENDERS["meta"].pieces(Piece(text="a" * 4_096 + " " * 20, buttons=buttons))
    assert all(len(piece.text) <= 4_096 for piece in pieces)
    assert len(pieces[-1].text) <= 1_024
    assert pieces[-1].buttons == buttons


@pytest.mark.parametrize("name", ["meta", "slack", "telegram", "twilio"])
@pytest.mark.parametrize("many", [Piece(text="x" * 410_000), Piece(media=(Attachment(url="https://x.example"),) * 101)])
def test_a_reply_of_too_many_messages_is_refused(name: str, many: Piece) -> None:
    with pytest.raises(Unsendable) as refused:
        SENDERS[name].pieces(many)
    assert refused.value.word is Word.TOO_LONG


@pytest.mark.parametrize("text", ["", " \n", "\u2003"])
@pytest.mark.parametrize("name", ["meta", "slack", "telegram", "twilio"])
def test_an_empty_reply_is_refused(name: str, text: str) -> None:
    with pytest.raises(Unsendable):
        SENDERS[name].pieces(Piece(text=text))


def test_what_looks_empty_is_for_the_receiver_of_standard_webhooks_to_show() -> None:
    with pytest.raises(Unsendable):
        SENDERS["standard"].pieces(Piece())
    assert SENDERS["standard"].pieces(Piece(text=" \n")) == [Piece(text=" \n")]


@every
def test_several_files_and_a_text_are_a_piece_each_in_order(name: str) -> None:
    media = tuple(Attachment(url=f"https://bot.example/{n}.png", kind=AttachmentKind.IMAGE) for n in range(2))
    pieces = SENDERS[name].pieces(Piece(text="two pictures", media=media, raw={"x": 1}))
    if name == "standard":
        assert pieces == [Piece(text="two pictures", media=media, raw={"x": 1})]
    else:
        assert [(piece.text, piece.media) for piece in pieces] == [
            ("", media[:1]),
            ("", media[1:]),
            ("two pictures", ()),
        ]
        assert [piece.raw for piece in pieces] == [None, None, {"x": 1}]


@every
def test_one_picture_and_a_short_text_are_one_message(name: str) -> None:
    media = (Attachment(url="https://bot.example/1.png", kind=AttachmentKind.IMAGE),)
    assert SENDERS[name].pieces(Piece(text="look", media=media)) == [Piece(text="look", media=media)]


PROBES: Final = {
    "meta": ("GET", "https://graph.facebook.com/v26.0/100?fields=id"),
    "slack": ("POST", "https://slack.com/api/auth.test"),
    "telegram": ("POST", "https://api.telegram.org/bot123456:tokenOfTelegram0123/getMe"),
    "twilio": ("GET", f"https://api.twilio.com/2010-04-01/Accounts/AC{'0' * 32}.json"),
}


@pytest.mark.parametrize("name", sorted(PROBES))
def test_a_probe_changes_nothing_and_says_whether_the_token_is_right(name: str) -> None:
    sender = sender_of(name, phone_number_id="100") if name == "meta" else SENDERS[name]
    request = sender.probe()
    assert request
    assert (request.method, request.url) == PROBES[name]
    well, ill = b'{"ok": true, "id": "100"}', b'{"ok": false, "error": "invalid_auth"}'
    assert sender.is_well(Response(200, {}, well))
    assert not sender.is_well(Response(200, {}, ill))
    assert not sender.is_well(Response(401, {}, well))


def test_without_a_number_or_with_an_address_of_your_own_there_is_no_probe() -> None:
    assert [SENDERS[name].probe() for name in ("meta", "standard")] == [None, None]


@every
@given(raw=st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=3), text=st.text(max_size=20))
@settings(deadline=None, max_examples=25)
def test_no_bots_own_fields_make_a_request_impossible(name: str, raw: dict[str, Any], text: str) -> None:
    assert SENDERS[name].request(outgoing(name, Piece(text=text, raw=raw))).body


@every
def test_neither_token_text_nor_number_is_in_what_is_logged(name: str) -> None:
    out = outgoing(name, Piece(text="the text"), callback_url="https://bot.example/webhooks/x")
    request = SENDERS[name].request(out)
    sign = SENDERS[name].presence(Sign(SignKind.TYPING, "5:7", out.to, out.route))
    answer = Response(400, {"x": "the text"}, b"the text")
    shown = repr((out, request, sign, answer, SENDERS[name], SENDERS[name].judge(out, answer)))
    secrets = [str(value) for value in TOKENS[name].values()] if name != "twilio" else ["secret-of-sixteen-letters"]
    for hidden in ["the text", "4915550100", SECRET, *secrets, "Bearer", "Basic"]:
        assert hidden not in shown
    if name not in {"standard", "twilio"}:
        with pytest.raises(Unsendable) as refused:
            SENDERS[name].request(Outgoing(KEY, (), Piece(text="the text")))
        assert refused.value.word is Word.NO_ROUTE
        assert not any(hidden in str(refused.value) for hidden in ["the text", *secrets])


@every
@given(
    status=st.integers(100, 599),
    body=st.one_of(st.binary(max_size=40), JSON_VALUES.map(lambda value: json.dumps(value).encode())),
    headers=st.dictionaries(st.sampled_from(["retry-after", "date"]), st.text(max_size=12)),
)
@settings(deadline=None, max_examples=60)
def test_no_answer_makes_a_judge_raise_and_what_is_not_certain_is_unknown(
    name: str, status: int, body: bytes, headers: dict[str, str]
) -> None:
    verdict = SENDERS[name].judge(outgoing(name, Piece(text="x")), Response(status, headers, body))
    certain = {429} | (set(range(200, 300)) | {410, 502, 504} if name == "standard" else set())
    assert verdict.outcome is Outcome.UNKNOWN or status in certain


WORDS: Final = st.sampled_from(
    [
        "ok",
        "error",
        "code",
        "error_code",
        "description",
        "parameters",
        "retry_after",
        "migrate_to_chat_id",
        "result",
        "message_id",
        "chat",
        "id",
        "messages",
        "sid",
        "ts",
        "channel",
        "is_transient",
        "status",
    ]
)
LIKELY: Final = st.recursive(
    st.sampled_from([True, False, None, 0, 7, -1, 400, 403, 429, 131047, 21610, "x", "", "ratelimited", "1.2", 1e300]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)


@every
@given(status=st.sampled_from([200, 201, 302, 400, 401, 403, 404, 429, 500, 503]), content=LIKELY)
@settings(deadline=None, max_examples=60)
def test_answers_that_are_nearly_right_make_no_judge_raise(name: str, status: int, content: Any) -> None:
    verdict = SENDERS[name].judge(outgoing(name, Piece(text="x")), Response(status, {}, json.dumps(content).encode()))
    if verdict.outcome is Outcome.ACCEPTED:
        assert 200 <= status < 300
        assert verdict.provider_id
    assert verdict.wait_s is None or 0 <= verdict.wait_s <= 86_400


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (httpx2.ConnectError(""), Outcome.NOT_NOW),
        (httpx2.ConnectTimeout(""), Outcome.NOT_NOW),
        (httpx2.PoolTimeout(""), Outcome.NOT_NOW),
        (httpx2.UnsupportedProtocol(""), Outcome.BROKEN),
        (httpx2.InvalidURL(""), Outcome.BROKEN),
        (httpx2.LocalProtocolError(""), Outcome.NEVER),
        (httpx2.RemoteProtocolError(""), Outcome.UNKNOWN),
        (httpx2.ReadError(""), Outcome.UNKNOWN),
        (httpx2.ReadTimeout(""), Outcome.UNKNOWN),
        (httpx2.WriteError(""), Outcome.UNKNOWN),
        (httpx2.WriteTimeout(""), Outcome.UNKNOWN),
        (httpx2.CloseError(""), Outcome.UNKNOWN),
        (httpx2.ProxyError(""), Outcome.UNKNOWN),
        (httpx2.DecodingError(""), Outcome.UNKNOWN),
        (httpx2.TooManyRedirects(""), Outcome.UNKNOWN),
        (asyncio.CancelledError(), Outcome.UNKNOWN),
        (TimeoutError(), Outcome.UNKNOWN),
        (RuntimeError("https://api.telegram.org/bot1:token"), Outcome.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_only_errors_before_anything_was_sent_are_certain(error: BaseException, outcome: Outcome) -> None:
    verdict = judge_error(error)
    assert (verdict.outcome, verdict.code) == (outcome, type(error).__name__)
    assert verdict.counts is (type(error).__name__ not in {"PoolTimeout", "UnsupportedProtocol", "InvalidURL"})


def test_a_request_that_cannot_be_written_is_refused_before_a_byte_is_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, httpx2.Client(trust_env=False) as client:
        with pytest.raises(httpx2.LocalProtocolError):
            client.post(f"http://127.0.0.1:{server.getsockname()[1]}", headers={"A": "x\ny"}, content=b"text")
        connection, _ = server.accept()
        with connection:
            connection.settimeout(30)
            assert connection.recv(1) == b""


def test_every_error_of_the_table_is_one_of_the_librarys() -> None:
    assert all(issubclass(getattr(httpx2, name), Exception) for name in ERRORS)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "999999999"}, 86_400.0),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "\u0667"}, None),
        ({"retry-after": "Thu, 26 Nov 2026 12:00:30 GMT", "date": "Thu, 26 Nov 2026 12:00:00 GMT"}, 30.0),
        ({"retry-after": "Thu, 26 Nov 2026 11:00:00 GMT", "date": "Thu, 26 Nov 2026 12:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 26 Nov 2026 12:00:30 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_beside_the_answers_own(headers: dict[str, str], wait_s: float | None) -> None:
    assert Response(429, headers).retry_after_s() == wait_s


def test_a_code_that_could_be_a_text_is_left_out() -> None:
    assert [code_of(one) for one in (131047, "channel_not_found", "hello you", "x" * 65, True, None, ["a"])] == [
        *("131047", "channel_not_found"),
        *[""] * 5,
    ]


def test_a_code_has_one_meaning() -> None:
    with pytest.raises(ValueError, match="7 has two meanings"):
        table((never(Word.BLOCKED, Certainty.MEMORY), [7]), (never(Word.OPTED_OUT, Certainty.MEMORY), ["7"]))


def test_an_unknown_verdict_waits_for_nobody() -> None:
    verdict = Verdict(Outcome.UNKNOWN)
    assert (verdict.scope, verdict.wait_s, verdict.counts) == (Scope.USER, None, True)
