"""WhatsApp's batches, from the signed bytes to the rows: who is who, and what becomes of the broken one."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from onelane.bootstrap import Services
from onelane.channels import PROVIDERS, Signed
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery, IdentityChange, Item, Kind
from onelane.model import Author, JsonObject
from onelane_web import create_app
from tests.conftest import LogLines
from tests.payloads.meta import SETTINGS, openssl_hmac
from tests.rows import Rows

CHANNEL = Channel(provider="meta", **SETTINGS)
META = PROVIDERS["meta"](PROVIDERS["meta"].settings_model.model_validate(SETTINGS))
PHONE, SCOPED, NEW_PHONE, NEW_SCOPED = "15550101", "US.1001", "15550109", "US.1009"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"channels": {"whatsapp": CHANNEL}})


@pytest.fixture
def client(services: Services) -> FlaskClient:
    return create_app(services).test_client()


def post(client: FlaskClient, signed: Signed) -> TestResponse:
    return client.post("/webhooks/whatsapp", data=signed.body, headers=dict(signed.headers))


def deliver(client: FlaskClient, *items: Item) -> None:
    for signed in META.sign_all("", items):
        assert post(client, signed).status_code == 200


def said(number: int, *senders: str, **more: Any) -> Delivery:
    return Delivery(**{"senders": senders, "external_id": f"wamid.{number}", "text": f"hello {number}", **more})


def test_a_person_whose_names_change_one_after_the_other_stays_one_user(rows: Rows, client: FlaskClient) -> None:
    story: list[Item] = [
        said(1, PHONE),
        said(2, PHONE, SCOPED),
        said(3, SCOPED),
        IdentityChange(senders=(SCOPED,), adds=(NEW_SCOPED,), external_id="wamid.4"),
        said(5, NEW_SCOPED),
        IdentityChange(senders=(PHONE, NEW_SCOPED), adds=(NEW_PHONE,), drops=(PHONE,), external_id="wamid.6"),
        said(7, NEW_PHONE),
    ]
    for item in story:
        deliver(client, item)
    deliver(client, *story)
    lines = rows.accepted()
    assert len({line.user_id for line in lines}) == 1
    assert sorted(line.seq for line in lines) == list(range(1, len(story) + 1))


def test_who_gets_a_number_that_somebody_left_is_somebody_else(rows: Rows, client: FlaskClient) -> None:
    change = IdentityChange(
        senders=(PHONE, SCOPED), adds=(NEW_PHONE, NEW_SCOPED), drops=(PHONE,), external_id="wamid.2"
    )
    deliver(client, said(1, PHONE, SCOPED), change, said(3, PHONE, "US.2001"), said(4, NEW_SCOPED))
    by_id = {line.external_id: line.user_id for line in rows.accepted()}
    assert by_id["wamid.1"] == by_id["wamid.4"] != by_id["wamid.3"]


def test_what_was_written_before_a_number_moved_on_and_arrives_late_gives_it_back_to_nobody(
    rows: Rows, services: Services, client: FlaskClient
) -> None:
    change = IdentityChange(
        senders=(PHONE, SCOPED), adds=(NEW_PHONE, NEW_SCOPED), drops=(PHONE,), external_id="wamid.2"
    )
    stranger = said(4, PHONE, "US.2001")
    deliver(client, said(1, PHONE, SCOPED), change, said(3, PHONE, SCOPED), stranger, said(5, PHONE, SCOPED))
    by_id = {line.external_id: line.user_id for line in rows.accepted()}
    assert by_id["wamid.1"] == by_id["wamid.3"] == by_id["wamid.5"] != by_id["wamid.4"]
    assert not services.database.rows("SELECT FROM identity_conflicts")


def test_a_number_that_its_owner_takes_back_is_theirs_again(rows: Rows, client: FlaskClient) -> None:
    gone = IdentityChange(senders=(PHONE, SCOPED), adds=(NEW_PHONE,), drops=(PHONE,), external_id="wamid.2")
    back = IdentityChange(senders=(NEW_PHONE, SCOPED), adds=(PHONE,), drops=(NEW_PHONE,), external_id="wamid.3")
    deliver(client, said(1, PHONE, SCOPED), gone, back, said(4, PHONE))
    assert len({line.user_id for line in rows.accepted()}) == 1


def test_a_group_is_a_partner_of_its_own_whoever_of_it_writes(rows: Rows, client: FlaskClient) -> None:
    group: dict[str, Any] = {"conversation": "group:g1", "author": Author(id=PHONE, name="Alice")}
    deliver(client, said(1, PHONE), said(2, PHONE, **group), said(3, "15550102", **group), said(4, PHONE))
    by_id = {line.external_id: line.user_id for line in rows.accepted()}
    assert by_id["wamid.1"] == by_id["wamid.4"]
    assert by_id["wamid.2"] == by_id["wamid.3"] != by_id["wamid.1"]


def test_one_broken_message_of_a_batch_is_kept_and_its_neighbours_are_accepted(
    rows: Rows, services: Services, client: FlaskClient
) -> None:
    [signed] = META.sign_all("", [said(1, PHONE), said(2, PHONE), said(3, PHONE)])
    batch = json.loads(signed.body)
    batch["entry"][0]["changes"][0]["value"]["messages"][1]["text"] = "hello 2"
    body = json.dumps(batch).encode()
    headers = {**signed.headers, "X-Hub-Signature-256": f"sha256={openssl_hmac(SETTINGS['secrets'][0], body)}"}
    for _ in range(2):
        assert post(client, Signed(headers, body)).status_code == 200
    assert [(line.external_id, line.seq) for line in rows.accepted()] == [("wamid.1", 1), ("wamid.3", 2)]
    [kept] = services.quarantine.all("whatsapp", 10)
    assert kept.reasons == ("text: must be a JSON object",)


@pytest.mark.parametrize(
    ("answers", "response", "repair"),
    [
        (r'{"\ud800": 1}', {"?": 1}, "surrogate"),
        (r'{"note": "a\u0000"}', {"note": "a"}, "nul"),
        (r'{"note": "\ud83d"}', {"note": "?"}, "surrogate"),
    ],
)
def test_the_answers_of_a_form_are_repaired_and_their_neighbours_are_accepted(
    answers: str, response: JsonObject, repair: str, services: Services, client: FlaskClient
) -> None:
    """They are JSON in a text: read after the batch was repaired, they failed all of it, at every redelivery."""
    [signed] = META.sign_all("", [said(1, PHONE), said(2, PHONE)])
    batch = json.loads(signed.body)
    form = batch["entry"][0]["changes"][0]["value"]["messages"][1]
    form |= {"type": "interactive", "interactive": {"type": "nfm_reply", "nfm_reply": {"response_json": answers}}}
    body = json.dumps(batch).encode()
    headers = {**signed.headers, "X-Hub-Signature-256": f"sha256={openssl_hmac(SETTINGS['secrets'][0], body)}"}
    for _ in range(2):
        assert post(client, Signed(headers, body)).status_code == 200
    lines = services.database.rows("SELECT external_id, text, parts, repairs FROM inbox ORDER BY seq")
    assert [(line.external_id, line.text, line.repairs) for line in lines] == [
        ("wamid.1", "hello 1", None),
        ("wamid.2", "", [repair]),
    ]
    assert lines[1].parts == {"flow": {"name": None, "response": response}}
    assert not services.quarantine.all("whatsapp", 10)


def test_what_is_not_signed_leaves_nothing(rows: Rows, services: Services, client: FlaskClient) -> None:
    [signed] = META.sign_all("", [said(1, PHONE)])
    for headers in ({}, {"X-Hub-Signature-256": f"sha256={'0' * 64}"}):
        refused = client.post(
            "/webhooks/whatsapp", data=signed.body, headers={"Content-Type": "application/json", **headers}
        )
        assert refused.status_code == 401
    assert not rows.accepted()
    assert not services.quarantine.all("whatsapp", 10)


def test_a_colleagues_message_hands_the_person_over_to_him(rows: Rows, client: FlaskClient) -> None:
    deliver(client, said(1, PHONE, SCOPED), said(2, SCOPED, kind=Kind.ECHO))
    [user_id] = {line.user_id for line in rows.accepted()}
    assert [session.status for session in rows.sessions(user_id)] == ["escalated"]


def test_a_refused_handshake_tells_the_operator_why_and_the_caller_nothing(
    client: FlaskClient, log_lines: LogLines
) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "a-token-of-others", "hub.challenge": "1158201444"}
    refused = client.get("/webhooks/whatsapp", query_string=query)
    assert (refused.status_code, refused.json) == (403, {"error": "the handshake is refused"})
    [line] = [line for line in log_lines if line["event"] == "signature_refused"]
    assert line["reason"] == "no verify token of the channel is the one that was given"
    known = client.get("/webhooks/whatsapp", query_string={**query, "hub.verify_token": SETTINGS["verify_tokens"][0]})
    assert (known.status_code, known.text, known.mimetype) == (200, "1158201444", "text/plain")
