"""Replies on their way to a provider, which is a process of its own: in order, once, and their fate is known."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from onelane.bootstrap import Services, open_services
from onelane.channels.slack.sending import SlackSender
from onelane.config import Settings
from onelane.sessions import publish_policies
from onelane.testing.fake_providers import Fault
from tests.conftest import LogLines, RunWorker, eventually, slow_after
from tests.outbox_fakes import Chat, sending_to_fakes


@pytest.fixture
def chat(services: Services, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    quick = settings.model_copy(update={"send_deadline_s": 20, "unknown_hold_s": 2, "shutdown_grace_s": 5})
    monkeypatch.setattr(SlackSender, "absent_after_s", 0.5)
    with sending_to_fakes(quick, tmp_path, "telegram", "standard", "slack") as (fakes, pointed):
        publish_policies(services.database, pointed.policies)
        sending = open_services(pointed, redis_timeout_s=3)
        yield Chat(sending, pointed, fakes)
        sending.close()


def test_a_reply_reaches_its_user_and_leaves_the_outbox(chat: Chat, run_worker: RunWorker) -> None:
    with run_worker(chat.settings):
        users = {channel: chat.write(channel, "alice", "one", "two", "three") for channel in ("telegram", "standard")}
        eventually(lambda: all(chat.states(user) == ["sent"] * 3 for user in users.values()))
    for channel in users:
        [texts] = chat.seen(channel).values()
        assert texts == ["one", "two", "three"]
    assert chat.outbox == []
    client = chat.services.out_lanes.client
    assert client.keys("rq:job:*") == [] == client.keys("rq:queue:reply:*")
    assert client.zcard("lanes:out") == 0


def settled(chat: Chat, *users: UUID) -> None:
    """Wait until all that they wrote is answered, and nothing of theirs is in the outbox."""

    def is_settled(user: UUID) -> bool:
        return chat.rows.is_settled(user) and bool(states := chat.states(user)) and "pending" not in states

    eventually(lambda: all(map(is_settled, users)))


def write_one_by_one(chat: Chat, channel: str, *texts: str) -> UUID:
    for text in texts:
        user = chat.write(channel, "alice", text)
    return user


@pytest.mark.parametrize(
    "fault",
    slow_after(1, ["accept_and_drop", "closed", "accept_and_half", "502_accepted", "accept_and_garbage", "500"]),
)
@pytest.mark.parametrize("channel", ["telegram", "standard", "slack"])
def test_a_request_without_a_certain_answer_is_settled_as_its_provider_allows(
    chat: Chat, run_worker: RunWorker, channel: str, fault: str
) -> None:
    """By its word, by a harmless repetition, or, where there is neither, by giving up; the lane goes on in order."""
    chat.fakes.plan(fault, channel=channel)
    user = write_one_by_one(chat, channel, "one", "two")
    with run_worker(chat.settings):
        settled(chat, user)
    was_taken = "accepted" in fault or "accept_" in fault
    [texts] = chat.seen(channel).values()
    if channel == "telegram":
        assert chat.states(user) == ["unknown", "sent"]
        assert texts == ["one", "two"][not was_taken :]
        assert chat.rows.replies(user)[0].given_up_at is not None
    else:
        assert chat.states(user) == ["sent", "sent"]
        assert list(dict.fromkeys(texts)) == ["one", "two"]
    assert chat.fakes.received.doubles() == {} or channel == "standard"
    assert chat.outbox == []


@pytest.mark.slow
def test_a_limit_of_the_user_is_waited_for_and_is_no_attempt(chat: Chat, run_worker: RunWorker) -> None:
    chat.fakes.plan(Fault("limit", wait_s=1), count=2, channel="telegram")
    user = write_one_by_one(chat, "telegram", "one", "two")
    with run_worker(chat.settings):
        settled(chat, user)
    assert chat.states(user) == ["sent", "sent"]
    assert list(chat.seen("telegram").values()) == [["one", "two"]]


def test_a_refused_reply_has_failed_its_bot_knows_and_the_next_one_is_sent(chat: Chat, run_worker: RunWorker) -> None:
    chat.fakes.plan(Fault("answer", code="403"), channel="telegram")
    user = write_one_by_one(chat, "telegram", "one", "two")
    client = chat.services.out_lanes.client
    with run_worker(chat.settings):
        settled(chat, user)
        eventually(lambda: not chat.services.database.rows("SELECT FROM failures_to_tell"))
    assert chat.states(user) == ["failed", "sent"]
    assert [row.failure for row in chat.rows.replies(user)] == ["blocked", None]
    assert client.zcard(f"rq:failed:reply:{user}") == 1


def test_a_broken_channel_stops_alone_and_goes_on_when_its_probe_succeeds(
    chat: Chat, run_worker: RunWorker, log_lines: LogLines
) -> None:
    chat.fakes.plan(Fault("answer", code="401"), count=3, channel="telegram")
    with run_worker(chat.settings):
        users = [chat.write("telegram", f"user {nr}", "hello") for nr in range(3)]
        broken = "SELECT FROM channel_holds WHERE channel = 'telegram' AND broken_at IS NOT NULL"
        eventually(lambda: chat.services.database.rows(broken))
        other = chat.write("standard", "bob", "hello")
        settled(chat, other)
        chat.fakes.clear()
        chat.services.database.rows("UPDATE channel_holds SET probe_at = clock_timestamp()")
        for user in users:
            chat.services.out_lanes.make_due(user)
        eventually(lambda: not chat.services.database.rows(broken))
        for user in users:
            chat.services.out_lanes.make_due(user)
        settled(chat, *users)
    assert [chat.states(user) for user in users] == [["sent"]] * 3
    events = [line["event"] for line in log_lines if line["event"].startswith("channel_")]
    assert events == ["channel_broken", "channel_mended"]
    assert [row.send_attempts for user in users for row in chat.rows.replies(user)] != []


def test_a_reply_with_a_file_can_be_the_probe(chat: Chat, run_worker: RunWorker) -> None:
    """Its mark is taken back while the file is uploaded, and so is the probe."""
    chat.services.database.rows("SELECT hold_channel('slack', clock_timestamp(), true, 'denied')")
    with run_worker(chat.settings.model_copy(update={"handler": "tests.bots:handle"})):
        user = chat.write("slack", "alice", "upload 100")
        eventually(lambda: chat.states(user) == ["sent"])
    assert chat.services.database.rows("SELECT FROM channel_holds WHERE broken_at IS NOT NULL") == []


@pytest.mark.slow
def test_nobody_listening_holds_the_channel_and_loses_nothing(chat: Chat, run_worker: RunWorker) -> None:
    chat.fakes.tell("deaf", for_s=4)
    user = write_one_by_one(chat, "telegram", "one", "two")
    with run_worker(chat.settings):
        settled(chat, user)
    assert list(chat.seen("telegram").values()) == [["one", "two"]]


@pytest.mark.slow
def test_a_slow_provider_delays_no_turn(chat: Chat, run_worker: RunWorker) -> None:
    settings = chat.settings.model_copy(update={"send_slots": 2})
    chat.fakes.play(Fault("answer", times=1, wait_s=4.0), share=1, channel="telegram")
    with run_worker(settings):
        for nr in range(4):
            chat.write("telegram", f"user {nr}", "slow")
        eventually(lambda: chat.outbox.count("sending") == 1)  # its share: the other slot is for others
        quick = chat.write("standard", "bob", "quick")
        eventually(lambda: chat.states(quick) == ["sent"])
        assert "pending" in chat.outbox
        chat.fakes.clear()
        eventually(lambda: chat.outbox == [])


@pytest.mark.slow
def test_a_stopping_worker_settles_what_is_under_way_and_marks_nothing_more(chat: Chat, run_worker: RunWorker) -> None:
    chat.fakes.plan(Fault("answer", times=1, wait_s=3), channel="telegram")
    user = write_one_by_one(chat, "telegram", "one", "two")
    with run_worker(chat.settings.model_copy(update={"send_deadline_s": 10})):
        eventually(lambda: "sending" in chat.outbox and len(chat.states(user)) == 2)
    assert chat.states(user) == ["sent", "pending"]
    assert chat.outbox == ["pending"]


def test_a_file_by_its_bytes_reaches_its_user_and_is_uploaded_once(chat: Chat, run_worker: RunWorker) -> None:
    """The message itself is refused at first: it is sent again, and what was uploaded is not."""
    chat.fakes.plan(Fault("answer", code="ratelimited"), channel="slack", what="send")
    with run_worker(chat.settings.model_copy(update={"handler": "tests.bots:handle"})):
        users = {
            channel: chat.write(channel, "alice", "upload 100000") for channel in ("telegram", "standard", "slack")
        }
        eventually(lambda: all(chat.states(user) == ["sent"] for user in users.values()))
    assert all(len(texts) == 1 for channel in users for texts in chat.seen(channel).values())
    assert len(chat.fakes.received.lines("received", channel="slack", what="media")) == 3, (
        "an address, the bytes, and that it is complete: once"
    )
    chat.services.database.rows("UPDATE reply_files SET created_at = created_at - interval '31 min'")
    chat.services.database.rows("SELECT forget_files(100)")
    assert chat.services.database.rows("SELECT id FROM reply_files") == []
