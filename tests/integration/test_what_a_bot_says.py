"""Replies as they are committed: in pieces that one request each can carry, wherever the handler ran."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from onelane import Attachment, AttachmentKind, Button, Line, Reply, Role, Turn, Upload
from onelane.bootstrap import Services
from onelane.config import Channel, Settings
from onelane.deliveries import Accepted, Delivery
from onelane.outbox.records import SendRecords
from onelane_web import create_app
from tests import loops
from tests.conftest import deliver
from tests.rows import Rows
from tests.working_off import work_off

LONG = "word " * 1_000
IN_TWO = [4_095, 905]
"""Letters of its pieces on Telegram."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    own: dict[str, Any] = {"secrets": ("secret-of-sixteen-letters",)}
    channels = {
        "tg": Channel(
            provider="telegram",
            bot_token="123456:token-of-the-test",
            end_reply=LONG,
            poison="apologise",
            apology=LONG,
            **own,
        ),
        "wa": Channel(provider="meta", access_token="token-of-the-test", **own),
    }
    return settings.model_copy(update={"channels": {**settings.channels, **channels}, "attempts_max": 1})


def accept(services: Services, channel: str, text: str = "hello", **more: Any) -> Accepted:
    delivery = Delivery(senders=("5550101",), external_id=uuid4().hex, text=text, **more)
    return deliver(services, [delivery], channel)[0]


def lengths(rows: Rows, accepted: Accepted) -> list[int]:
    return [len(text) for text in rows.texts(accepted.user_id)]


def answer_long(turn: Turn) -> Reply:
    return Reply(LONG)


def raise_it(turn: Turn) -> str:
    raise ValueError


def answer_too_much(turn: Turn) -> list[str]:
    return ["yes"] * 99 + [LONG]


@pytest.mark.parametrize(
    ("text", "handler", "state"),
    [("hello", answer_long, "processed"), ("/new", answer_long, "processed"), ("hello", raise_it, "dead")],
    ids=["a handler's", "at the end of a session", "an apology"],
)
def test_every_reply_is_stored_in_the_pieces_that_its_provider_takes(
    rows: Rows, services: Services, settings: Settings, text: str, handler: Any, state: str
) -> None:
    accepted = accept(services, "tg", text)
    work_off(services, settings, handler)
    assert (lengths(rows, accepted), rows.states(accepted.user_id)) == (IN_TWO, [state])


@pytest.mark.slow
def test_the_reply_of_a_handler_that_ran_apart_is_in_pieces_too(
    rows: Rows, services: Services, settings: Settings
) -> None:
    accepted = accept(services, "tg", LONG)
    rows.set_deaths(accepted.message_id, 2)
    work_off(services, settings.model_copy(update={"handler": "tests.bots:handle"}))
    assert lengths(rows, accepted) == IN_TWO


def test_replies_that_need_too_many_messages_are_a_failed_attempt_that_says_what_to_do(
    rows: Rows, services: Services, settings: Settings
) -> None:
    accepted = accept(services, "tg")
    work_off(services, settings, answer_too_much)
    [message] = rows.inbound(accepted.user_id)
    assert "must not need more than 100 messages: say less" in message.last_error
    assert lengths(rows, accepted) == IN_TWO, "the apology, and nothing else"


def test_history_and_the_page_of_replies_show_files_and_buttons_as_they_were_said(
    rows: Rows, services: Services, settings: Settings
) -> None:
    photo, yes = Attachment(url="https://cdn.example/a.jpg", kind=AttachmentKind.IMAGE), Button(id="y", title="Yes")
    said = [Reply("look", media=[photo]), Reply("well?", buttons=[yes], quote="5550101:7", raw={"silent": True})]
    known: list[Line] = []
    accepted = accept(services, "demo", attachments=(photo,))
    work_off(services, settings, lambda turn: said)
    accept(services, "demo")
    work_off(services, settings, lambda turn: known.extend(turn.history()))
    assert [(line.role, line.media, line.buttons) for line in known] == [
        ("user", (photo,), ()),
        ("bot", (photo,), ()),
        ("bot", (), (yes,)),
    ]
    page = create_app(services).test_client().get("/webhooks/demo/replies?user=5550101").json or {}
    photo_told = {"url": "https://cdn.example/a.jpg", "kind": "image"}
    assert [(reply["media"], reply["buttons"], reply["failure"]) for reply in page["replies"]] == [
        ([photo_told], [], "no_route"),
        ([], [{"id": "y", "title": "Yes"}], "no_route"),
    ]
    [_, asked] = rows.replies(accepted.user_id)
    assert (asked.quoted, asked.raw) == ("5550101:7", {"silent": True})
    assert {line.state for line in known if line.role is Role.BOT} == {"withheld"}, "no way to send is told, and kept"


def test_a_turn_knows_until_when_its_provider_takes_replies(rows: Rows, services: Services, settings: Settings) -> None:
    known: dict[tuple[str, str], datetime | None] = {}

    def note(turn: Turn) -> None:
        known[turn.user.channel, turn.message.text] = turn.reply_until

    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    accept(services, "tg")
    late = accept(services, "wa", "late", sent_at=an_hour_ago)
    work_off(services, settings, note)
    assert known == {("tg", "hello"): None, ("wa", "late"): an_hour_ago + timedelta(days=1)}

    written = accept(services, "wa", "now")
    accept(services, "wa", "later", sent_at=datetime.now(UTC) + timedelta(hours=1))
    work_off(services, settings, note)
    [_, now, later] = rows.inbound(written.user_id)
    assert late.user_id == written.user_id
    assert known["wa", "now"] == known["wa", "later"] == later.accepted_at + timedelta(days=1)
    assert now.accepted_at < later.accepted_at


def test_neither_an_event_nor_an_echo_moves_the_time_for_replies(
    rows: Rows, services: Services, settings: Settings
) -> None:
    accepted = accept(services, "wa")
    written_at = rows.user(accepted.user_id).last_written_at
    accept(services, "wa", "", kind="event", event="reaction", parts={"reaction": {"emoji": "👍"}})
    accept(services, "wa", "", kind="echo")
    user = rows.user(accepted.user_id)
    assert user.last_written_at == written_at < user.last_accepted_at


def test_what_a_provider_has_no_form_for_fails_alone_and_is_told_and_the_rest_waits_to_be_sent(
    rows: Rows, services: Services, settings: Settings
) -> None:
    accepted = accept(services, "tg")
    work_off(services, settings, lambda turn: [Reply("one"), Reply("two", template={"name": "hi"}), Reply("three")])
    found = rows.replies(accepted.user_id)
    assert [(row.text, row.state, row.failure) for row in found] == [
        ("one", "pending", None),
        ("two", "failed", "bad_content"),
        ("three", "pending", None),
    ]
    assert rows.ask("SELECT word FROM failures_to_tell WHERE reply_id = %s", found[1].id).word == "bad_content"
    assert rows.ask("SELECT array_agg(ordinal ORDER BY ordinal) AS them FROM outbox").them == [1, 3]


def an_upload() -> Upload:
    return Upload(data=b"\0" * 2**20, name="a.png", content_type="image/png")


def files(rows: Rows) -> int:
    count: int = rows.ask("SELECT count(*) FROM reply_files").count
    return count


def test_the_bytes_of_a_file_are_kept_until_its_reply_is_sent_and_no_longer(
    rows: Rows, services: Services, settings: Settings
) -> None:
    upload = an_upload()
    accepted = accept(services, "tg")
    work_off(services, settings, lambda turn: [Reply("look"), Reply(media=[upload])])
    [_, reply] = rows.replies(accepted.user_id)
    kept = rows.ask("SELECT * FROM reply_files")
    described = {"file": str(kept.id), "kind": "image", "content_type": "image/png", "name": "a.png", "size": 2**20}
    assert reply.attachments == [described]
    assert (kept.user_id, kept.turn_seq, bytes(kept.data)) == (accepted.user_id, 1, upload.data)

    records = SendRecords(settings, services.database)
    [found] = loops.run(records.files([kept.id]))
    assert (found.uploaded, bytes(found.data)) == (None, upload.data)
    loops.run(records.note_uploaded(kept.id, Attachment(id="77", kind=AttachmentKind.IMAGE)))
    [found] = loops.run(records.files([kept.id, uuid4()]))
    assert (found.uploaded, found.data) == ({"id": "77", "kind": "image"}, None)

    services.database.rows("UPDATE reply_files SET created_at = created_at - interval '31 min'")
    services.database.rows("SELECT forget_files(100)")
    assert files(rows) == 1, "its reply waits"
    services.database.rows("DELETE FROM outbox")
    services.database.rows("SELECT forget_files(100)")
    assert files(rows) == 0


def test_the_files_of_a_batch_are_kept_under_the_number_of_its_replies(
    rows: Rows, services: Services, settings: Settings
) -> None:
    collecting = settings.channels["tg"].model_copy(update={"on_busy": "collect", "collect_quiet_s": 0.05})
    accept(services, "tg", "one")
    accept(services, "tg", "two")
    channels = {**settings.channels, "tg": collecting}
    work_off(services, settings.model_copy(update={"channels": channels}), lambda turn: Reply(media=[an_upload()]))
    assert [rows.ask(f"SELECT turn_seq FROM {table}").turn_seq for table in ("outbox", "reply_files")] == [2, 2]
    services.database.rows("UPDATE reply_files SET created_at = created_at - interval '31 min'")
    services.database.rows("SELECT forget_files(100)")
    assert files(rows) == 1, "its reply waits"


def test_what_a_turn_that_is_not_committed_has_kept_goes_later(
    rows: Rows, services: Services, settings: Settings
) -> None:
    orphan = "INSERT INTO reply_files (id, user_id, turn_seq, data) VALUES (%s, %s, 1, '')"
    services.database.rows(orphan, (uuid4(), uuid4()))
    services.database.rows("SELECT forget_files(100)")
    assert files(rows) == 1, "it may be committed yet"


def test_no_bytes_are_kept_for_a_channel_that_sends_none(rows: Rows, services: Services, settings: Settings) -> None:
    accepted = accept(services, "demo")
    work_off(services, settings, lambda turn: Reply(media=[an_upload()]))
    assert (rows.replies(accepted.user_id)[0].failure, files(rows)) == ("no_route", 0)


@pytest.mark.slow
def test_a_handler_that_runs_apart_sends_files_as_well(rows: Rows, services: Services, settings: Settings) -> None:
    accepted = accept(services, "tg", "upload 16000000")
    rows.set_deaths(accepted.message_id, 2)
    work_off(services, settings.model_copy(update={"handler": "tests.bots:handle"}))
    assert [len(bytes(kept.data)) for kept in services.database.rows("SELECT data FROM reply_files")] == [16_000_000]
    assert rows.states(accepted.user_id) == ["processed"]
