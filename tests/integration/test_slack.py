"""Slack's webhooks, from the signed bytes to the rows: who and where, and what is the same once more."""

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient

from onelane.bootstrap import Services
from onelane.channels import Inbound
from onelane.channels.slack.playing import FORM, JSON
from onelane.config import Channel, Settings
from onelane_web import create_app
from tests.payloads.slack import SETTINGS, signed
from tests.rows import Rows

ROOT, REPLY = "1769000000.000100", "1769000001.000100"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"channels": {"team": Channel(provider="slack", **SETTINGS)}})


@pytest.fixture
def client(services: Services) -> FlaskClient:
    return create_app(services).test_client()


def post(client: FlaskClient, body: str, content_type: str) -> int:
    request = signed(Inbound("", {}, content_type, body.encode()))
    headers = {**request.headers, "Content-Type": content_type, "X-Slack-Retry-Num": "1"}
    return client.post("/webhooks/team", data=request.body, headers=headers).status_code


def happens(client: FlaskClient, event_id: str, **event: Any) -> None:
    bots = [{"team_id": "T1", "user_id": "UBOT", "is_bot": True}]
    body = {"type": "event_callback", "team_id": "T1", "api_app_id": "A1", "event_id": event_id, "event": event}
    assert post(client, json.dumps({**body, "authorizations": bots}), JSON) == 200


def says(client: FlaskClient, event_id: str, channel: str, ts: str, **more: Any) -> None:
    message = {"type": "message", "channel": channel, "user": "UALICE", "ts": ts, "text": "hello"}
    happens(client, event_id, **{**message, **more})


def acts(client: FlaskClient, **payload: Any) -> None:
    common = {"team": {"id": "T1"}, "user": {"id": "UALICE"}, "trigger_id": "1.2.abc"}
    assert post(client, urlencode({"payload": json.dumps({**common, **payload})}), FORM) == 200


def commands(client: FlaskClient, channel: str, trigger_id: str) -> None:
    form = {"team_id": "T1", "channel_id": channel, "user_id": "UALICE", "command": "/order"}
    assert post(client, urlencode({**form, "trigger_id": trigger_id}), FORM) == 200


def users(rows: Rows) -> dict[str, Any]:
    return {line.external_id: line.user_id for line in rows.accepted()}


def test_what_a_person_does_alone_with_the_bot_is_of_one_user(rows: Rows, client: FlaskClient) -> None:
    """A form names no channel, an echo no person: the message that names both links them."""
    acts(client, type="view_submission", view={"id": "V1", "hash": "h", "callback_id": "order"})
    commands(client, "DALICE", "1.2.abc")
    says(client, "Ev1", "DALICE", ROOT)
    says(client, "Ev2", "DALICE", REPLY, user="UBOT", bot_id="B1", app_id="A1")
    happens(client, "Ev3", type="app_home_opened", user="UALICE", channel="DALICE")
    assert list(users(rows)) == ["V1:h", "1.2.abc", f"T1:DALICE:{ROOT}", f"T1:DALICE:{REPLY}", "Ev3"]
    assert len(set(users(rows).values())) == 1


def test_a_thread_is_a_partner_of_its_own_whoever_writes_in_it(rows: Rows, client: FlaskClient) -> None:
    says(client, "Ev1", "DALICE", ROOT)
    says(client, "Ev2", "C1", ROOT)
    says(client, "Ev3", "C1", REPLY, thread_ts=ROOT, user="UBOB")
    action = {"type": "button", "action_id": "a", "value": "1", "action_ts": REPLY}
    message = {"ts": REPLY, "thread_ts": ROOT}
    acts(client, type="block_actions", channel={"id": "C1"}, message=message, actions=[action])
    commands(client, "C1", "1.2.abc")
    found = users(rows)
    thread = {found[f"T1:C1:{ROOT}"], found[f"T1:C1:{REPLY}"], found[f"T1:C1:{REPLY}:a:{REPLY}"]}
    assert len(thread) == 1
    assert len({*thread, found[f"T1:DALICE:{ROOT}"], found["1.2.abc"]}) == 3


@pytest.mark.parametrize("first", ["message", "app_mention"])
def test_a_mention_and_its_message_are_one_line_whichever_comes_first(
    first: str, rows: Rows, client: FlaskClient
) -> None:
    other = {"message": "app_mention", "app_mention": "message"}[first]
    for event_id, kind in (("Ev1", first), ("Ev2", other), ("Ev2", other)):
        says(client, event_id, "C1", ROOT, type=kind, text="<@UBOT> help")
    line = rows.ask(
        "SELECT count(*) AS lines, min(external_id) AS external_id, bool_and(mentioned) AS mentioned FROM inbox"
    )
    assert (line.lines, line.external_id, line.mentioned) == (1, f"T1:C1:{ROOT}", True)


def test_what_the_bots_own_app_posts_leaves_the_conversation_to_the_bot(rows: Rows, client: FlaskClient) -> None:
    says(client, "Ev1", "DALICE", ROOT, user="UBOT", bot_id="B1", app_id="A1")
    says(client, "Ev2", "DALICE", REPLY)
    [alice] = set(users(rows).values())
    assert "escalated" not in {session.status for session in rows.sessions(alice)}


def test_without_its_headers_a_webhook_is_refused_unread(rows: Rows, client: FlaskClient) -> None:
    too_large = b"x" * 2**21
    assert client.post("/webhooks/team", data=too_large, headers={"Content-Type": JSON}).status_code == 401
    assert not rows.accepted()


def test_a_changed_body_is_refused_and_nothing_of_it_is_stored(rows: Rows, client: FlaskClient) -> None:
    request = signed(Inbound("", {}, JSON, b"{}"))
    headers = {**request.headers, "Content-Type": JSON}
    changed = replace(request, body=b"[]")
    assert client.post("/webhooks/team", data=changed.body, headers=headers).status_code == 401
    assert not rows.accepted()
