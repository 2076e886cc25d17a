"""Replies in pieces, as they are committed: one row a request, whatever a channel can send."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import pytest

from onelane.bot.reply import Reply
from onelane.channels import providers
from onelane.channels.senders import Senders, are_short, pieces_of, row_of
from onelane.channels.sending import Piece
from onelane.config import Channel
from onelane.errors import BadResult
from onelane.model import Attachment, Button
from onelane.outbox.reply import Waiting
from tests.conftest import LogLines
from tests.unit.test_sending import SECRET, TOKENS

KINDS: Final = ("meta", "slack", "telegram", "twilio")
YES_NO: Final = (Button(id="y", title="Yes"), Button(id="n", title="No"))
NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def senders() -> Senders:
    channels = {name: Channel(provider=name, secrets=("secret-of-sixteen-letters",), **TOKENS[name]) for name in KINDS}
    channels["standard"] = Channel(provider="standard", secrets=(SECRET,), **TOKENS["standard"])
    channels["mute"] = Channel(provider="standard", secrets=(SECRET,))
    return Senders(providers(channels))


def rows_of(senders: Senders, channel: str, *replies: Reply) -> list[Any]:
    return senders.rows(channel, pieces_of([one.said() for one in replies]))


def test_a_long_text_is_a_row_for_each_message_that_it_needs(senders: Senders) -> None:
    text = "word " * 1_000
    rows = rows_of(senders, "telegram", Reply(text, quote="5:7", buttons=YES_NO))
    assert len(rows) == 2
    assert "".join(row["text"] for row in rows) == text
    assert [set(row) for row in rows] == [{"text", "quoted"}, {"text", "parts"}]
    assert rows[1]["parts"] == {"buttons": [{"id": "y", "title": "Yes"}, {"id": "n", "title": "No"}]}


def test_a_row_is_read_as_the_piece_that_it_was() -> None:
    piece = Piece(
        text="look",
        buttons=YES_NO,
        media=(Attachment(url="https://cdn.example/a.jpg", name="a"),),
        quote="7",
        raw={"silent": True},
    )
    for one in (piece, Piece(template={"name": "hi"}), Piece(text="yes")):
        row = {"id": uuid4(), "seq": 1, "ordinal": 1, "channel": "c", "attempt": 1, "sending_at": NOW, "now": NOW}
        assert Waiting.model_validate({**row, "parts": None, "quoted": None, **row_of(one)}).piece == one


def test_a_channel_without_a_way_to_send_keeps_each_reply_whole_and_says_so(senders: Senders) -> None:
    text = "word " * 10_000
    rows = rows_of(senders, "mute", Reply(text, buttons=YES_NO), Reply("yes"))
    assert [(row["text"], row["failure"]) for row in rows] == [(text, "no_route"), ("yes", "no_route")]
    assert rows[0]["parts"]["buttons"][0] == {"id": "y", "title": "Yes"}
    assert rows_of(senders, "configured no more", Reply("yes")) == [{"text": "yes", "failure": "no_route"}]


@pytest.mark.parametrize(
    ("channel", "said", "word", "reason"),
    [
        ("telegram", Reply(template={"name": "private"}), "bad_content", "Telegram has no templates"),
        ("twilio", Reply("private", media=[Attachment(id="7")]), "bad_content", "media must have an address"),
        ("twilio", Reply("private" * 100_000), "too_long", "a reply must not need more than 100 messages"),
        ("meta", Reply("private", template={"name": "hi"}), "bad_content", "a template stands alone"),
        ("slack", Reply(""), "bad_content", "an empty reply cannot be sent"),
    ],
)
def test_what_a_provider_has_no_form_for_is_one_failed_row_and_its_neighbours_stand(
    senders: Senders, log_lines: LogLines, channel: str, said: Reply, word: str, reason: str
) -> None:
    rows = rows_of(senders, channel, Reply("before"), said, Reply("after"))
    assert [(row["text"], row.get("failure")) for row in rows] == [
        ("before", None),
        (said.text, word),
        ("after", None),
    ]
    [line] = [line for line in log_lines if line["event"] == "reply_unsendable"]
    assert (line["channel"], line["word"]) == (channel, word)
    assert line["reason"].startswith(reason)
    assert "private" not in str(line)


def test_a_turns_replies_need_a_hundred_messages_at_most(senders: Senders) -> None:
    assert len(rows_of(senders, "telegram", *[Reply("yes")] * 100)) == 100
    with pytest.raises(BadResult, match="must not need more than 100 messages"):
        rows_of(senders, "telegram", *[Reply("yes")] * 99, Reply("word " * 1_000))


def test_what_a_handlers_process_says_is_checked_again() -> None:
    for said in ([{"text": 7}], [7], "yes", {"text": "yes"}, [{"text": "yes", "media": [[]]}]):
        with pytest.raises(BadResult, match=r"^replies\."):
            pieces_of(said)


def test_a_text_that_is_split_never_holds_the_loop_up(senders: Senders) -> None:
    assert are_short([Piece(text="a" * 1_000)])
    assert not are_short([Piece(text="a" * 600), Piece(text="a" * 401)])
    assert not are_short([Piece(buttons=(Button(id="y", title="t" * 1_001),))])
    short = [Piece(text="👨‍👩‍👧‍👦" * 90 + "&" * 300)]
    assert are_short(short)
    for channel in KINDS:
        assert len(senders.rows(channel, short)) == 1


def test_the_largest_text_is_split_in_time_that_grows_as_it_does(senders: Senders) -> None:
    def seconds(letters: int) -> float:
        took = []
        for _ in range(3):
            began = time.process_time()
            rows_of(senders, "telegram", Reply("word " * (letters // 5)))
            took.append(time.process_time() - began)
        return min(took)

    seconds(5_000)
    assert seconds(400_000) < 8 * max(seconds(100_000), 0.01)


def test_until_when_anything_but_a_template_is_taken(senders: Senders) -> None:
    tomorrow = NOW + timedelta(days=1)
    assert senders.reply_until("meta", ("4915550100",), NOW) == tomorrow
    assert senders.reply_until("twilio", ("whatsapp:+15550100",), NOW) == tomorrow
    assert senders.reply_until("twilio", ("+15550100",), NOW) is None
    assert senders.reply_until("telegram", ("5",), NOW) is None
    assert senders.reply_until("mute", ("5",), NOW) is None
    assert senders.reply_until("meta", ("4915550100",), None) is None


def test_a_channels_apology_is_in_pieces_too(senders: Senders) -> None:
    own = {"provider": "telegram", "apology": "Sorry."}
    channels = {"telegram": Channel(poison="apologise", **own), "mute": Channel(poison="skip", **own)}
    assert senders.apologies(channels) == {"telegram": [{"text": "Sorry."}]}
