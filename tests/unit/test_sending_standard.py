import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook

from onelane.channels.sender import OnUnknown
from onelane.channels.sending import Outgoing, Piece, Sign, SignKind
from onelane.channels.standard.codes import CODES
from onelane.channels.standard.sending import StandardSender
from onelane.channels.verdicts import Outcome, Response, Scope, Unsendable, Verdict, Word
from onelane.model import Attachment, AttachmentKind, Button
from tests.unit.test_sending import SECRET, sender_of

KEY = UUID(int=16)
NOW = datetime(2026, 11, 26, 12, 0, 0, 500_000, tzinfo=UTC)
STANDARD = StandardSender("https://bot.example/replies?x=1", SECRET, lambda: NOW)


def outgoing(piece: Piece | str = "hello", **more: Any) -> Outgoing:
    return Outgoing(KEY, ("alice", "alice-2"), Piece(text=piece) if isinstance(piece, str) else piece, **more)


def judged(status: int, body: bytes = b"", **headers: str) -> Verdict:
    return STANDARD.judge(outgoing(), Response(status, headers, body))


def test_a_reply_is_one_signed_post_whose_id_is_the_replys() -> None:
    request = STANDARD.request(outgoing(route={"room": 7}))
    assert (request.name, request.method, request.url) == ("reply", "POST", "https://bot.example/replies?x=1")
    assert request.headers == {
        "Content-Type": "application/json",
        "webhook-id": str(KEY),
        "webhook-timestamp": "1795694400",
        "webhook-signature": Webhook(SECRET).sign(str(KEY), NOW, request.body.decode()),
    }
    assert json.loads(request.body) == {
        "type": "reply",
        "key": str(KEY),
        "senders": ["alice", "alice-2"],
        "route": {"room": 7},
        "text": "hello",
    }


def test_the_librarys_receiver_verifies_it_as_of_now() -> None:
    request = sender_of("standard").request(outgoing())
    Webhook(SECRET).verify(request.body, dict(request.headers))


def test_everything_that_a_bot_can_say_has_a_form() -> None:
    said = Piece(
        text="Sure?",
        buttons=(Button(id="y", title="Yes"),),
        media=(Attachment(url="https://bot.example/1.png", kind=AttachmentKind.IMAGE, name="cat"),),
        template={"name": "hello"},
        quote="7",
        raw={"mood": "good", "key": "x", "type": "status", "senders": []},
    )
    [piece] = STANDARD.pieces(said)
    assert json.loads(STANDARD.request(outgoing(piece)).body) == {
        "type": "reply",
        "key": str(KEY),
        "senders": ["alice", "alice-2"],
        "text": "Sure?",
        "buttons": [{"id": "y", "title": "Yes"}],
        "attachments": [{"url": "https://bot.example/1.png", "kind": "image", "name": "cat"}],
        "template": {"name": "hello"},
        "reply_to": "7",
        "mood": "good",
    }


def test_nothing_is_split_and_an_empty_reply_refused() -> None:
    long = Piece(text="word " * 100_000)
    assert STANDARD.pieces(long) == [long]
    with pytest.raises(Unsendable):
        STANDARD.pieces(Piece(quote="7"))


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_success_is_accepted_and_named_by_the_key(status: int) -> None:
    assert judged(status) == Verdict(Outcome.ACCEPTED, provider_id=str(KEY))
    assert judged(status, b'{"id": ""}') == judged(status, b"[]") == judged(status)


def test_the_receiver_may_name_the_reply() -> None:
    assert judged(200, b'{"id": "m-7"}').provider_id == "m-7"


ROWS = [
    (429, Outcome.NOT_NOW, Word.LIMIT, Scope.CHANNEL, False),
    (502, Outcome.NOT_NOW, Word.AWAY, Scope.CHANNEL, True),
    (504, Outcome.NOT_NOW, Word.AWAY, Scope.CHANNEL, True),
    (410, Outcome.BROKEN, Word.GONE, Scope.CHANNEL, False),
]


def test_the_rows_are_the_whole_table() -> None:
    assert {str(status) for status, *_ in ROWS} == set(CODES)


@pytest.mark.parametrize(("status", "outcome", "word", "scope", "counts"), ROWS)
def test_each_status_has_its_class(status: int, outcome: Outcome, word: Word, scope: Scope, counts: bool) -> None:
    found = judged(status, b"", **{"retry-after": "5"})
    assert (found.outcome, found.word, found.scope, found.counts) == (outcome, word, scope, counts)
    assert (found.code, found.wait_s) == (str(status), 5)
    assert STANDARD.word_of(str(status)) is word


@pytest.mark.parametrize("status", [100, 302, 400, 401, 403, 404, 413, 422, 500, 503])
def test_anything_else_is_unknown_and_repeated_with_the_same_key(status: int) -> None:
    assert judged(status).outcome is Outcome.UNKNOWN
    assert STANDARD.on_unknown is OnUnknown.RESEND


def test_there_is_nothing_to_ask_and_nothing_to_show() -> None:
    assert STANDARD.look_up(outgoing(), NOW, {}) is None
    assert STANDARD.presence(Sign(SignKind.TYPING, "7", ("alice",))) is None
    assert STANDARD.window_s(("alice",)) is None
