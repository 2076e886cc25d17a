"""What is said from outside a turn: once a key, in order with what turns say, in the history of the open session."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from threading import Thread
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from standardwebhooks import Webhook

import onelane
from onelane.bootstrap import Services
from onelane.bot.reply import Reply
from onelane.channels.verdicts import Unsendable, Word
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery
from onelane.errors import ConfigError, StoreAway
from onelane.model import Button
from onelane.processes.retention import Retention
from onelane_web import create_app
from tests.by_hand import ByHand
from tests.calls import Calls, delivery, lease
from tests.conftest import SECRET, LogLines, deliver
from tests.rows import Rows

OLD, NEW = "whsec_b2xkIHNlY3JldCBvZiBzYXk=", "whsec_bmV3IHNlY3JldCBvZiBzYXk="
MUTE = Channel(provider="standard", secrets=(SECRET,))
DEMO = Channel(provider="standard", secrets=(SECRET,), reply_url="https://replies.example")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"channels": {"demo": DEMO, "mute": MUTE}, "say_secret": secrets(OLD)})


def secrets(*values: str) -> SecretStr:
    return SecretStr(" ".join(values))


@pytest.fixture
def alice(services: Services) -> ByHand:
    """Wrote, and got an answer."""
    alice = ByHand(services.database)
    alice.say()
    alice.turn(replies=[{"text": "answer"}])
    return alice


def say(services: Services, user: str | UUID, text: str = "news", key: str | None = None) -> onelane.Said:
    return services.saying.say("demo", user, Reply(text), key)


def lines(alice: ByHand) -> list[tuple[int, int, str]]:
    return [(row.turn_seq, row.ordinal, row.text) for row in alice.rows.replies(alice.user_id)]


def test_it_comes_after_what_the_last_settled_turn_said_and_before_what_the_next_says(
    services: Services, alice: ByHand
) -> None:
    alice.say()
    said = say(services, alice.user_id)
    alice.turn(replies=[{"text": "next"}])
    assert lines(alice) == [(1, 1, "answer"), (1, 2, "news"), (2, 1, "next")]
    assert said.session_id == alice.rows.sessions(alice.user_id)[0].id
    assert [one.text for one in services.sessions.history(said.session_id, 3)] == ["news", "", "next"]
    assert alice.rows.anomalies() == []


def test_it_moves_no_time_of_the_session_and_makes_no_running_turn_stale(services: Services, alice: ByHand) -> None:
    alice.say()
    turn = alice.begin()
    [session] = alice.rows.sessions(alice.user_id)
    user = alice.rows.user(alice.user_id)
    say(services, alice.user_id)
    assert alice.rows.sessions(alice.user_id) == [session]
    assert alice.rows.user(alice.user_id) == user
    assert alice.commit(turn).outcome == "committed"


def test_without_an_open_session_it_lies_in_none_and_opens_none(services: Services, alice: ByHand) -> None:
    services.acts.end_session(alice.user_id, by="ann")
    assert say(services, alice.user_id).session_id is None
    assert len(alice.rows.sessions(alice.user_id)) == 1


def test_a_human_who_has_the_session_keeps_nothing_from_being_said(services: Services, alice: ByHand) -> None:
    assert services.acts.escalate(alice.user_id, by="ann")
    said = say(services, alice.user_id)
    assert alice.rows.replies(alice.user_id)[-1].state == "pending"
    assert said.session_id is not None


def test_under_one_key_it_is_said_once_also_by_many_at_once(
    services: Services, alice: ByHand, log_lines: list[Any]
) -> None:
    said: list[onelane.Said] = []
    threads = [Thread(target=lambda: said.append(say(services, alice.user_id, key="k"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.duplicate for one in said) == [False] + 7 * [True]
    assert len({one.ids for one in said}) == 1
    assert say(services, alice.user_id, "other words", "k").ids == said[0].ids
    assert lines(alice) == [(1, 1, "answer"), (1, 2, "news")]
    assert "redelivery_differs" in {line["event"] for line in log_lines}


def forget(services: Services) -> int:
    """Let all sessions be over for longer than retention keeps them; return how many it forgets."""
    services.database.rows("DELETE FROM outbox")
    services.database.rows(
        "UPDATE messages SET state = 'sent', accepted_at = now() - interval '3 d' WHERE state = 'pending'"
    )
    services.database.rows(
        "UPDATE conversation_sessions SET ended_at = now() - interval '2 d', started_at = now() - interval '3 d',"
        " last_message_at = now() - interval '2 d'"
    )
    return Retention(services.database, {"demo": 1}).forget()


def test_what_retention_has_forgotten_is_known_by_its_key_and_said_no_more(
    services: Services, alice: ByHand, log_lines: LogLines
) -> None:
    said = say(services, alice.user_id, key="k")
    services.acts.end_session(alice.user_id, by="ann")
    assert forget(services) == 1
    again = [say(services, alice.user_id, text, "k") for text in ("news", "other words")]
    assert again == [onelane.Said(user_id=said.user_id, ids=(), session_id=None, duplicate=True)] * 2
    assert lines(alice) == []
    [line] = [line for line in log_lines if line["event"] == "redelivery_differs"]
    assert line["message_id"] is None


def test_a_webhook_that_is_named_like_what_was_said_is_no_duplicate_of_it(
    services: Services, alice: ByHand, rows: Rows
) -> None:
    """It was answered as one, and lost."""
    said = say(services, alice.user_id, key="k")
    [taken] = deliver(services, [Delivery(senders=("mallory",), external_id="say:k")])
    assert (taken.duplicate, taken.user_id) == (False, rows.user_of("demo", "mallory"))
    assert say(services, alice.user_id, key="k").ids == said.ids


def test_what_is_said_under_the_name_of_a_webhook_is_said_and_to_nobody_else(
    services: Services, alice: ByHand, rows: Rows
) -> None:
    """It failed, since it was to be said to whoever had written that."""
    deliver(services, [Delivery(senders=("mallory",), external_id=f"say:{key}") for key in "ab"])
    for key, user in (("a", alice.user_id), ("b", "bob")):
        said = say(services, user, key=key)
        assert (said.duplicate, len(said.ids)) == (False, 1)
        assert say(services, user, key=key).ids == said.ids
        assert said.user_id != rows.user_of("demo", "mallory")
    assert lines(alice) == [(1, 1, "answer"), (1, 2, "news")]


def test_its_lane_is_due_with_all_its_jobs(services: Services, alice: ByHand) -> None:
    said = say(services, alice.user_id)
    [leased] = services.out_lanes.lease("w", 1, 1, 10).leases
    assert services.out_lanes.jobs(alice.user_id) == [str(said.ids[0])]
    assert leased.user_id == alice.user_id


def test_whoever_never_wrote_becomes_a_user_where_the_channel_can_send(services: Services, rows: Rows) -> None:
    said = say(services, "+4912345")
    assert rows.user_of("demo", "+4912345") == said.user_id
    [begun] = Calls(services.database).begin_sends(lease(said.user_id))
    assert (begun["reply"]["to"], begun["reply"]["seq"]) == (["+4912345"], 0)
    [accepted] = Calls(services.database).accept(delivery("+4912345", "m1"))
    assert accepted["user_id"] == str(said.user_id)


@pytest.mark.parametrize("user", [UUID(int=7), str(UUID(int=7))])
def test_an_id_that_nobody_has_makes_no_user(services: Services, rows: Rows, user: UUID | str) -> None:
    with pytest.raises(Unsendable) as refused:
        say(services, user)
    assert refused.value.word is Word.NO_ROUTE
    assert rows.senders() == []


def test_a_channel_that_cannot_send_makes_no_user_and_withholds_what_is_said_to_one(
    services: Services, rows: Rows
) -> None:
    with pytest.raises(Unsendable):
        services.saying.say("mute", "carol", Reply("news"))
    carol = rows.make_user("mute", "carol")
    services.saying.say("mute", "carol", Reply("news"))
    [reply] = rows.replies(carol)
    assert (reply.state, reply.failure) == ("withheld", "no_route")


def test_who_wants_no_messages_gets_none_and_what_was_said_before_stays_said(services: Services, alice: ByHand) -> None:
    before = say(services, alice.user_id, key="k")
    services.database.rows("UPDATE users SET opted_out_at = now() WHERE id = %s", (alice.user_id,))
    with pytest.raises(Unsendable) as refused:
        say(services, alice.user_id)
    assert refused.value.word is Word.OPTED_OUT
    assert say(services, alice.user_id, key="k").ids == before.ids


def test_a_merged_users_id_leads_to_the_winner(services: Services, alice: ByHand, rows: Rows) -> None:
    bob = rows.make_user("demo", "bob")
    assert services.acts.merge(alice.user_id, bob, by="ann")
    assert say(services, bob).user_id == say(services, "bob").user_id == alice.user_id


def test_a_script_says_things_over_connections_of_its_own(
    settings: Settings, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "from_environment", lambda: settings)
    said = onelane.say("dave", onelane.Reply("news", buttons=[Button(id="y", title="Yes")]), channel="demo")
    with onelane.Speaker(settings) as speaker:
        again = speaker.say("dave", "more", channel="demo", key="k")
        assert (again.user_id, again.duplicate) == (said.user_id, False)
        assert speaker.say("dave", "more", channel="demo", key="k").duplicate
    assert [row.text for row in Rows(services.database).replies(said.user_id)] == ["news", "more"]


@pytest.mark.parametrize(
    ("said", "why"),
    [("a\0b", "Reply.text: "), (Reply("news", raw={"note": "a\0b"}), "Postgres refuses it: ")],
    ids=["before it is stored", "as it is stored"],
)
def test_what_cannot_be_stored_is_unsendable_like_all_that_cannot_be_said(
    settings: Settings, services: Services, said: str | Reply, why: str
) -> None:
    with onelane.Speaker(settings) as speaker, pytest.raises(Unsendable, match=why) as refused:
        speaker.say("eve", said, channel="demo")
    assert refused.value.word is Word.BAD_CONTENT


# over HTTP


@pytest.fixture
def client(services: Services) -> FlaskClient:
    return create_app(services).test_client()


class Answer(NamedTuple):
    status: int
    content: dict[str, Any]
    retry_after: str | None


def post(client: FlaskClient, content: Any, secret: str = OLD, channel: str = "demo", request_id: str = "r1") -> Answer:
    body, now = content if isinstance(content, str) else json.dumps(content), datetime.now(UTC)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": request_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(request_id, now, body),
    }
    answer = client.post(f"/say/{channel}", data=body, headers=headers)
    return Answer(answer.status_code, answer.json or {}, answer.headers.get("Retry-After"))


def test_a_signed_request_says_something_once_however_often_it_comes(client: FlaskClient, alice: ByHand) -> None:
    content = {"user": str(alice.user_id), "text": "news", "buttons": [{"id": "y", "title": "Yes"}]}
    first, again = post(client, content), post(client, content)
    assert (first.status, again.status) == (202, 202)
    assert first.content == {**again.content, "duplicate": False}
    assert set(first.content) == {"user_id", "ids", "session_id", "duplicate"}
    assert post(client, {**content, "key": "k"}, request_id="r2").content["duplicate"] is False
    assert post(client, {**content, "key": "k"}, request_id="r3").content["duplicate"] is True
    assert [text for _, _, text in lines(alice)] == ["answer", "news", "news"]


def test_a_request_that_comes_again_when_what_it_said_is_forgotten_is_a_duplicate(
    services: Services, client: FlaskClient, alice: ByHand
) -> None:
    """It was an error of ours, for up to eight days."""
    content = {"user": str(alice.user_id), "text": "news"}
    post(client, content)
    services.acts.end_session(alice.user_id, by="ann")
    assert forget(services) == 1
    again = post(client, content)
    assert (again.status, again.content["duplicate"], again.content["ids"]) == (202, True, [])
    assert lines(alice) == []


@pytest.mark.parametrize(
    ("content", "status", "named"),
    [
        ({"text": "news"}, 400, {"field": "user"}),
        ({"user": "eve", "txet": "news"}, 400, {"field": "txet"}),
        ({"user": "eve", "text": 1}, 400, {"field": "text"}),
        ({"user": "eve", "media": [{"url": "ftp://a"}]}, 400, {"field": "body"}),
        ({"user": "eve", "text": "a\0b"}, 400, {"field": "text"}),
        ({"user": "eve", "text": "news", "key": "parcel 4711"}, 400, {"field": "key"}),
        ("[]", 400, {"field": "body"}),
        ("{", 400, {"field": "body"}),
        ({"user": "eve"}, 422, {"word": "bad_content"}),
        ({"user": "00000000-0000-0000-0000-000000000000", "text": "news"}, 404, {"word": "no_route"}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_said_is_refused_by_its_name(
    client: FlaskClient, content: Any, status: int, named: dict[str, str]
) -> None:
    answer = post(client, content)
    assert (answer.status, {name: answer.content.get(name) for name in named}) == (status, named), answer


def test_only_those_who_sign_are_served_and_old_and_new_secrets_both_do(
    services: Services, settings: Settings, client: FlaskClient
) -> None:
    content = {"user": "eve", "text": "news"}
    assert client.post("/say/demo", json=content).status_code == 401
    assert post(client, content, NEW).status == 401
    assert post(client, content, channel="nobodys").status == 404
    both = create_app(with_secret(services, settings, NEW, OLD)).test_client()
    assert [post(both, content, secret).status for secret in (NEW, OLD)] == [202, 202]
    none = settings.model_copy(update={"say_secret": None})
    assert post(create_app(replaced(services, none)).test_client(), content).status == 404


def with_secret(services: Services, settings: Settings, *values: str) -> Services:
    return replaced(services, settings.model_copy(update={"say_secret": secrets(*values)}))


def replaced(services: Services, settings: Settings) -> Services:
    return replace(services, settings=settings)


def test_a_secret_that_signs_nothing_stops_the_web(services: Services, settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"^SAY_SECRET: must be at least 16 characters"):
        create_app(with_secret(services, settings, "short"))


def test_with_postgres_away_the_request_is_to_come_again(
    services: Services, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreAway("away")

    monkeypatch.setattr(services.database, "row", away)
    answer = post(client, {"user": "eve", "text": "news"})
    assert (answer.status, answer.retry_after) == (503, "5")
