from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from onelane.bootstrap import Services, open_services
from onelane.bot.reply import Reply
from onelane.channels import Answer, Inbound, Parsed, provider_of
from onelane.channels.standard import Standard, StandardSettings
from onelane.config import Channel, Settings
from onelane.deliveries import Accepted, Delivery
from onelane.dev.embedded import EmbeddedPostgres
from onelane.inbox.receiving import Receiving
from onelane.inbox.statuses import Statuses
from onelane.model import Attachment
from onelane.postgres.migrations import migrate
from onelane_web import create_app
from onelane_web.development import replies
from tests.by_hand import ByHand
from tests.calls import Calls, lease, sent
from tests.conftest import DEADLINE_S, LogLines, eventually
from tests.rows import Rows
from tests.working_off import work_off

UNREACHABLE = "127.0.0.1:9"


@pytest.fixture
def client(services: Services) -> FlaskClient:
    return create_app(services).test_client()


@pytest.fixture
def client_with(settings: Settings) -> Iterator[Callable[..., FlaskClient]]:
    """Make clients of an application with other settings."""
    with ExitStack() as opened:

        def client_with(**changes: Any) -> FlaskClient:
            services = open_services(settings.model_copy(update=changes))
            opened.callback(services.close)
            return create_app(services).test_client()

        yield client_with


@pytest.fixture
def without_postgres(client_with: Callable[..., FlaskClient]) -> FlaskClient:
    return client_with(database_url=f"postgresql://{UNREACHABLE}/none")


@pytest.fixture
def without_redis(client_with: Callable[..., FlaskClient]) -> FlaskClient:
    return client_with(redis_url=f"redis://{UNREACHABLE}")


def deliver(client: FlaskClient, settings: Settings, delivery: Delivery) -> TestResponse:
    signed = provider_of(settings.channels["demo"]).sign("", delivery)
    return client.post("/webhooks/demo", data=signed.body, headers=dict(signed.headers))


def message(number: int = 1, **fields: Any) -> Delivery:
    return Delivery(**{"senders": ("alice",), "external_id": f"m{number}", "text": f"hello {number}", **fields})


def test_an_accepted_message_is_committed_and_on_its_lane(
    rows: Rows, client: FlaskClient, services: Services, settings: Settings
) -> None:
    response = deliver(client, settings, message(button="b"))
    assert response.status_code == 202
    [row] = rows.accepted()
    assert (row.seq, row.text, row.button, row.external_id) == (1, "hello 1", "b", "m1")
    assert response.json == {
        "message_id": str(row.id),
        "user_id": str(row.user_id),
        "seq": 1,
        "duplicate": False,
    }
    assert services.lanes.jobs(row.user_id) == [str(row.id)]


def test_fifty_webhooks_at_once_are_numbered_without_a_gap_and_known_when_they_come_again(
    rows: Rows, services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("inbox.receiving.ANSWER_MAX_S", "inbox.receiving.RECEIVE_MAX_S", "inbox.patience.HANGS_S"):
        monkeypatch.setattr(f"onelane.{limit}", DEADLINE_S)
    app = create_app(services)
    deliveries = [message(number) for number in range(50)]

    def answer(delivery: Delivery) -> dict[str, Any]:
        response = deliver(app.test_client(), settings, delivery)
        assert response.status_code == 202
        return response.json or {}

    with ThreadPoolExecutor(50) as pool:
        first = list(pool.map(answer, deliveries))
        again = list(pool.map(answer, deliveries))
    assert sorted(one["seq"] for one in first) == list(range(1, 51))
    assert not any(one["duplicate"] for one in first)
    assert again == [{**one, "duplicate": True} for one in first]
    assert {str(row.id) for row in rows.accepted()} == {one["message_id"] for one in first}
    eventually(lambda: len(services.lanes.jobs(first[0]["user_id"])) == 50)


def test_without_postgres_nothing_is_accepted_and_the_provider_may_try_again(
    without_postgres: FlaskClient, client: FlaskClient, settings: Settings
) -> None:
    response = deliver(without_postgres, settings, message())
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert UNREACHABLE not in response.text
    again = deliver(client, settings, message())
    assert (again.status_code, (again.json or {})["duplicate"]) == (202, False)


def test_without_redis_a_message_is_accepted_all_the_same(
    rows: Rows, without_redis: FlaskClient, services: Services, settings: Settings
) -> None:
    assert deliver(without_redis, settings, message()).status_code == 202
    assert len(rows.accepted()) == 1


def test_a_user_with_too_many_waiting_messages_is_told_to_wait(
    rows: Rows, client_with: Callable[..., FlaskClient], services: Services, settings: Settings
) -> None:
    demo = settings.channels["demo"].model_copy(update={"backlog_max": 2})
    client = client_with(channels={"demo": demo})
    answers = [deliver(client, settings, message(number)) for number in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert answers[2].headers["Retry-After"] == "30"
    other = deliver(client, settings, message(7, senders=("bob",)))
    assert other.status_code == 202
    assert len(rows.accepted()) == 3


class Album(Standard):
    """A provider whose webhooks carry several messages, as most do."""

    def parse(self, request: Inbound) -> Parsed:
        """Read one message of each sender named in the body's text."""
        [one] = super().parse(request).deliveries
        return Parsed(
            [
                one.model_copy(update={"senders": (sender,), "external_id": f"{one.external_id} {nr}"})
                for nr, sender in enumerate(one.text.split())
            ]
        )

    def answer(self, accepted: Sequence[Accepted]) -> Answer:
        """Say how many are new."""
        return Answer(202, "text/plain", str(sum(not one.duplicate for one in accepted)))


def test_of_a_webhook_with_several_messages_one_full_backlog_refuses_nobody_elses(
    rows: Rows, services: Services, settings: Settings, log_lines: LogLines
) -> None:
    """The provider repeats all of it; for the others those are duplicates."""
    demo = settings.channels["demo"].model_copy(update={"backlog_max": 1})
    limited = open_services(settings.model_copy(update={"channels": {"demo": demo}}))
    albums = {"demo": Album(StandardSettings.model_validate(demo.own))}
    statuses = Statuses(limited.database, {}, limited.out_lanes, limited.failures)
    receiving = Receiving(albums, limited.database.breaker, limited.intake, statuses, limited.quarantine)
    client = create_app(replace(limited, providers=albums, receiving=receiving)).test_client()
    deliver(client, settings, message(text="alice"))
    album = message(2, text="bob alice carol alice")
    refused = deliver(client, settings, album)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "30")
    events = [line["event"] for line in log_lines if line["event"].startswith("delivery")]
    assert events == ["delivery_accepted"] * 3 + ["delivery_not_accepted"] * 2 + ["delivery_refused"]
    work_off(services, settings, lambda turn: f"{turn.user.id}")
    assert rows.answered() == 3
    assert deliver(client, settings, album).status_code == 429
    work_off(services, settings, lambda turn: f"{turn.user.id}")
    assert deliver(client, settings, album).data == b"1"
    work_off(services, settings, lambda turn: f"{turn.user.id}")
    assert rows.answered() == 5
    limited.close()


@pytest.mark.parametrize(
    "extreme",
    [
        {"senders": ("\U0001f600" * 256,)},
        {"external_id": "~" * 256},
        {"text": "\U0001f600" * 32_768},
        {"text": "\x01\x1f\x7f\u2028\ufeff\ufffe\uffff\\u0000"},
        {"sent_at": datetime(1970, 1, 1, tzinfo=UTC)},
        {"sent_at": datetime(2999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)},
        {"attachments": (Attachment(url="https://" + "x" * 4_000),) * 32},
    ],
    ids=lambda extreme: next(iter(extreme)),
)
def test_everything_at_its_limit_can_be_stored(
    rows: Rows, client: FlaskClient, services: Services, settings: Settings, extreme: dict[str, Any]
) -> None:
    delivery = message(**extreme)
    assert deliver(client, settings, delivery).status_code == 202
    [row] = rows.accepted()
    assert (row.text, row.sent_at) == (delivery.text, delivery.sent_at)


def test_a_migrated_and_reachable_service_is_ready(client: FlaskClient) -> None:
    assert client.get("/readyz").json == {
        "status": "ok",
        "postgres": "ok",
        "redis": "ok",
        "migrations": "ok",
        "inbox": "ok",
    }


def test_what_cannot_be_reached_is_not_ready_and_nobody_is_named(
    without_postgres: FlaskClient, without_redis: FlaskClient
) -> None:
    for client, missing, migrations in ((without_postgres, "postgres", "unknown"), (without_redis, "redis", "ok")):
        response = client.get("/readyz")
        found = response.json or {}
        assert (response.status_code, found[missing], found["migrations"]) == (503, "unavailable", migrations)
        assert UNREACHABLE not in response.text
        assert client.get("/healthz").status_code == 200


def test_a_database_that_is_not_migrated_is_not_ready(
    client: FlaskClient, rows: Rows, postgres: EmbeddedPostgres
) -> None:
    rows.ask("DELETE FROM schema_files WHERE name = 'functions/accept' RETURNING name")
    try:
        response = client.get("/readyz")
    finally:
        migrate(postgres.url)
    assert (response.status_code, (response.json or {})["migrations"]) == (503, "pending")
    assert client.get("/readyz").status_code == 200


def test_a_web_that_was_ready_stays_so_when_the_next_release_has_changed_a_function(
    client: FlaskClient, rows: Rows, postgres: EmbeddedPostgres
) -> None:
    assert client.get("/readyz").status_code == 200
    rows.ask("UPDATE schema_files SET digest = 'of the next release' WHERE name = 'functions/accept' RETURNING name")
    try:
        assert client.get("/readyz").status_code == 200
    finally:
        migrate(postgres.url)


def test_replies_come_in_order_with_the_message_they_answer(
    rows: Rows, client: FlaskClient, services: Services, settings: Settings
) -> None:
    ids = [(deliver(client, settings, message(number)).json or {})["message_id"] for number in (1, 2, 3)]
    alice = rows.user_of("demo", "alice")
    rows.settle(alice, 1, "one", "two")
    rows.settle(alice, 2)
    told = client.get("/webhooks/demo/replies?user=alice").json or {}
    assert [(reply["message_id"], reply["seq"], reply["ordinal"], reply["text"]) for reply in told["replies"]] == [
        (ids[0], 1, 1, "one"),
        (ids[0], 1, 2, "two"),
    ]
    assert [(one["external_id"], one["state"]) for one in told["messages"]] == [
        ("m1", "processed"),
        ("m2", "processed"),
    ]
    assert told["done_seq"] == 2
    assert len({one["session_id"] for one in told["replies"] + told["messages"]}) == 1


def test_a_page_ends_before_the_first_message_that_waits_whatever_event_is_behind_it(
    rows: Rows, client: FlaskClient, services: Services, settings: Settings
) -> None:
    """`onelane send` had gone on behind the event, and never saw what became of its message."""
    deliver(client, settings, message(1))
    deliver(client, settings, message(2, kind="event", event="reaction"))
    told = client.get("/webhooks/demo/replies?user=alice").json or {}
    assert (told["messages"], told["done_seq"]) == ([], 0)
    rows.settle(rows.user_of("demo", "alice"), 1, "one")
    told = client.get("/webhooks/demo/replies?user=alice").json or {}
    assert [one["external_id"] for one in told["messages"]] == ["m1", "m2"]
    assert ([one["text"] for one in told["replies"]], told["done_seq"]) == (["one"], 2)


def test_a_long_list_of_replies_goes_on_after_its_last_whole_turn(
    rows: Rows, client: FlaskClient, services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "ROWS_MAX", 4)
    for seq in (1, 2, 3):
        deliver(client, settings, message(seq))
        rows.settle(rows.user_of("demo", "alice"), seq, f"{seq}a", f"{seq}b")
    pages, after = [], 0
    while (told := client.get(f"/webhooks/demo/replies?user=alice&after={after}").json or {})["messages"]:
        pages.append([reply["text"] for reply in told["replies"]])
        after = told["done_seq"]
    assert pages == [["1a", "1b"], ["2a", "2b"], ["3a", "3b"]]


def test_each_reply_has_its_state_and_why_and_those_of_an_escalated_turn_are_not_shown(
    rows: Rows, client: FlaskClient, services: Services, settings: Settings
) -> None:
    calls = Calls(services.database)
    for number in (1, 2):
        deliver(client, settings, message(number))
    alice = ByHand(services.database, user_id=rows.user_of("demo", "alice"))
    alice.turn(replies=[{"text": "one"}, {"text": "two"}, {"text": "three", "failure": "no_route"}])
    [begun] = calls.begin_sends(lease(alice.user_id))
    overtaken = alice.begin()
    services.sessions.escalate(alice.user_id)
    alice.commit(overtaken, replies=[{"text": "never seen"}])
    told = client.get("/webhooks/demo/replies?user=alice").json or {}
    assert [(one["text"], one["state"], one["failure"]) for one in told["replies"]] == [
        ("one", "sending", None),
        ("two", "pending", None),
        ("three", "withheld", "no_route"),
    ]
    calls.settle_sends(sent(begun))
    told = client.get("/webhooks/demo/replies?user=alice").json or {}
    assert [one["state"] for one in told["replies"]] == ["sent", "pending", "withheld"]
    assert [one["seq"] for one in told["messages"]] == [1, 2]


def test_what_was_said_before_any_turn_is_shown_first(
    rows: Rows, client: FlaskClient, services: Services, settings: Settings
) -> None:
    deliver(client, settings, message(1))
    alice = rows.user_of("demo", "alice")
    services.saying.say("demo", alice, Reply("news"), None)
    told = client.get("/webhooks/demo/replies?user=alice").json or {}
    assert [(one["seq"], one["text"], one["message_id"], one["session_id"]) for one in told["replies"]] == [
        (0, "news", None, None)
    ]
    rows.settle(alice, 1, "one")
    told = client.get("/webhooks/demo/replies?user=alice").json or {}
    assert [one["text"] for one in told["replies"]] == ["news", "one"]


def test_somebody_unknown_has_no_replies(client: FlaskClient) -> None:
    told = client.get("/webhooks/demo/replies?user=%00%ff&after=7").json or {}
    assert (told["replies"], told["messages"], told["done_seq"]) == ([], [], 7)


@pytest.mark.parametrize(
    ("query", "field"), [("", "user"), ("user=a&after=-1", "after"), (f"user=a&after={'9' * 30}", "after")]
)
def test_a_question_that_makes_no_sense_is_400(client: FlaskClient, query: str, field: str) -> None:
    response = client.get(f"/webhooks/demo/replies?{query}")
    assert (response.status_code, (response.json or {})["field"]) == (400, field)


def test_replies_are_closed_outside_development(client_with: Callable[..., FlaskClient]) -> None:
    client = client_with(development=False)
    assert client.get("/webhooks/demo/replies?user=alice").status_code == 404


def test_a_retired_secret_is_refused(client: FlaskClient) -> None:
    old = Channel(provider="standard", secrets=("whsec_" + "b2xk" * 8,))
    signed = provider_of(old).sign("", message())
    assert client.post("/webhooks/demo", data=signed.body, headers=dict(signed.headers)).status_code == 401
