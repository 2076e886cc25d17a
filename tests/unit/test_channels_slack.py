import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.signature import SignatureVerifier

from onelane.channels import Inbound, Provider, provider_of
from onelane.channels.fetching import fetched, open_client
from onelane.channels.provider import FileSteps
from onelane.channels.slack.interactions import ACTIONS_MAX
from onelane.channels.slack.playing import FORM, JSON
from onelane.config import Channel
from onelane.deliveries import Accepted, Delivery, IdentityChange, Ignored, Item, Kind, Quarantined
from onelane.errors import BadRequest, BadSignature, ConfigError, Unsupported
from onelane.model import Attachment, AttachmentKind, Author, File
from onelane.testing.conformance.case import Case, cases
from tests import loops
from tests.file_server import serving
from tests.payloads.slack import SECRET, signed

URL = "https://bot.example/webhooks/team"
OLD_SECRET = "the-signing-secret-before-it"
TOKEN = "xoxb-of-the-test-app"
SENT_AT = datetime(2026, 1, 21, 12, 53, 20, 100, UTC)
TS = "1769000000.000100"
TYPES = [JSON, FORM]


def slack(**more: Any) -> Provider:
    return provider_of(Channel(provider="slack", **{"secrets": [SECRET, OLD_SECRET], "bot_token": TOKEN, **more}))


SLACK = slack()


def posted(body: str | bytes, content_type: str = JSON, headers: Mapping[str, str] | None = None) -> Inbound:
    return Inbound(URL, headers or {}, content_type, body.encode() if isinstance(body, str) else body)


def why_refused(request: Inbound) -> str:
    with pytest.raises(BadSignature) as caught:
        SLACK.verify(request)
    return caught.value.why


def made(item: Item, provider: Provider = SLACK) -> Inbound:
    """Let our side play Slack's, and Slack's SDK verify it."""
    request = provider.sign(URL, item)
    assert SignatureVerifier(SECRET).is_valid_request(request.body, dict(request.headers))
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Inbound(URL, headers, request.headers["Content-Type"], request.body)


def returned(item: Item, provider: Provider = SLACK) -> list[Item]:
    request = made(item, provider)
    provider.verify(request)
    return list(provider.parse(request).items)


@pytest.mark.parametrize("content_type", TYPES)
def test_what_slack_signs_is_verified(content_type: str) -> None:
    SLACK.verify(signed(posted("{}", content_type)))


@pytest.mark.parametrize("bit", [0, 7, 11, 60])
def test_one_changed_bit_is_refused(bit: int) -> None:
    request = signed(posted('{"a": 1}'))
    body = bytearray(request.body)
    body[bit // 8] ^= 1 << bit % 8
    assert "no secret" in why_refused(replace(request, body=bytes(body)))


def test_each_secret_verifies_during_a_rotation_and_no_other_does() -> None:
    stamp = str(int(time.time()))
    for secret in (SECRET, OLD_SECRET):
        mac = SignatureVerifier(secret).generate_signature(timestamp=stamp, body="{}")
        SLACK.verify(posted("{}", headers={"x-slack-request-timestamp": stamp, "x-slack-signature": mac or ""}))
    mac = SignatureVerifier("somebody else's").generate_signature(timestamp=stamp, body="{}")
    headers = {"x-slack-request-timestamp": stamp, "x-slack-signature": mac or ""}
    assert "no secret" in why_refused(posted("{}", headers=headers))


@pytest.mark.parametrize(
    "stamp", ["-301", "+400", "now", "", "1e9", "٣", "9" * 400, "-1", "NaN", " 1769000000", "\ud800"], ids=range(11)
)
def test_another_time_is_refused_though_it_is_signed(stamp: str) -> None:
    if stamp in {"-301", "+400"}:
        stamp = str(int(time.time()) + int(stamp))
    mac = SignatureVerifier(SECRET).generate_signature(timestamp=stamp.replace("\ud800", "?"), body="{}")
    request = posted("{}", headers={"x-slack-request-timestamp": stamp, "x-slack-signature": mac or ""})
    assert "time" in why_refused(request) or "missing" in why_refused(request)


@pytest.mark.parametrize("mac", ["", "v0=", "v0=é", "\ud800", "v1=abc", "x" * 10_000], ids=range(6))
def test_another_signature_is_refused(mac: str) -> None:
    why_refused(posted("{}", headers={"x-slack-request-timestamp": str(int(time.time())), "x-slack-signature": mac}))


def test_a_content_type_that_slack_never_has_is_unsupported_before_anything_is_signed() -> None:
    with pytest.raises(Unsupported):
        SLACK.verify(posted("{}", "text/plain"))


def test_an_answer_is_empty_since_slack_would_show_it() -> None:
    accepted = Accepted(message_id=UUID(int=1), user_id=UUID(int=2), seq=1, duplicate=False, is_waiting=True)
    for answered in ([], [accepted]):
        answer = SLACK.answer(answered)
        assert (answer.status, answer.content_type, answer.body) == (200, "text/plain", "")


ALICE = SLACK.persona("alice")
[PERSON, DIRECT] = ALICE.senders
USER = PERSON.partition(":")[2]
IN_DM: dict[str, Any] = {"senders": ALICE.senders, "route": ALICE.route, "sent_at": SENT_AT}
IN_THREAD: dict[str, Any] = {
    "senders": (PERSON,),
    "conversation": "C1:1768990000.000001",
    "author": Author(id=USER),
    "route": {"channel": "C1", "thread_ts": "1768990000.000001", "team": "T0ONELANE"},
    "sent_at": SENT_AT,
}
IN_CHANNEL: dict[str, Any] = {
    "senders": (PERSON,),
    "conversation": f"C1:{USER}",
    "author": Author(id=USER),
    "route": {"channel": "C1", "team": "T0ONELANE"},
}
OWN = {**IN_DM, "senders": (DIRECT,), "kind": Kind.ECHO, "is_ours": True}
HERE, THERE = f"T0ONELANE:{DIRECT}:{TS}", f"T0ONELANE:C1:{TS}"
QUOTED, QUOTED_THERE = f"T0ONELANE:{DIRECT}:1768990000.000001", "T0ONELANE:C1:1768990000.000001"
PRESSED = {"action": {"id": "choice", "block": "choices", "type": "button", "value": "yes"}}
FILLED = {"view": {"callback_id": "order", "values": {"size": {"size": "l"}}}}
FILE = Attachment(
    url="https://files.slack.com/1", id="F1", kind=AttachmentKind.IMAGE, content_type="image/png", name="a.png", size=1
)
VOICE = Attachment(id="F2", kind=AttachmentKind.VOICE, content_type="audio/mp4")
ROUND_TRIPS = {
    "message": Delivery(**IN_DM, external_id=HERE, text="1 < 2 & 3"),
    "message in a thread": Delivery(**IN_THREAD, external_id=THERE, text="hello"),
    "mention": Delivery(**IN_THREAD, external_id=THERE, text="<@U0ONELANE> help", mentioned=True),
    "files": Delivery(**IN_DM, external_id=HERE, text="look", attachments=(FILE, VOICE)),
    "button": Delivery(
        **IN_DM,
        external_id=f"{QUOTED}:choice:{TS}",
        text="Yes & go",
        button="yes",
        closes=True,
        parts=PRESSED,
        quoted=QUOTED,
    ),
    "button in a thread": Delivery(
        **IN_THREAD,
        external_id=f"{QUOTED_THERE}:choice:{TS}",
        text="Yes",
        button="yes",
        closes=True,
        parts=PRESSED,
        quoted=QUOTED_THERE,
    ),
    "form": Delivery(
        senders=(PERSON,),
        route={"channel": USER, "team": "T0ONELANE"},
        external_id="V1:h",
        button="order",
        closes=True,
        parts=FILLED,
    ),
    "command": Delivery(
        senders=ALICE.senders, route=ALICE.route, external_id="1.2.abc", text="/order < 2", closes=True
    ),
    "command in a channel": Delivery(**IN_CHANNEL, external_id="1.2.abc", text="/order", closes=True),
    "echo": Delivery(**OWN, external_id=HERE, text="done"),
    "edited": Delivery(**IN_DM, external_id="Ev1", kind=Kind.EVENT, event="edited", text="a & b", quoted=QUOTED),
    "deleted": Delivery(**IN_THREAD, external_id="Ev1", kind=Kind.EVENT, event="deleted", quoted=THERE),
    "reaction": Delivery(
        **IN_DM,
        external_id="Ev1",
        kind=Kind.EVENT,
        event="reaction",
        quoted=QUOTED,
        parts={"reaction": {"emoji": "tada"}},
    ),
    "reaction taken back": Delivery(
        **IN_DM,
        external_id="Ev1",
        kind=Kind.EVENT,
        event="reaction",
        quoted=QUOTED,
        parts={"reaction": {"emoji": None}},
    ),
    "joined": Delivery(**IN_CHANNEL, external_id="Ev1", kind=Kind.EVENT, event="joined"),
    "left": Delivery(**IN_CHANNEL, external_id="Ev1", kind=Kind.EVENT, event="left"),
    "opened": Delivery(**IN_DM, external_id="Ev1", kind=Kind.EVENT, event="opened"),
}


@pytest.mark.parametrize("delivery", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_what_onelane_plays_slack_s_sdk_verifies_and_the_adapter_reads_back(delivery: Delivery) -> None:
    [item] = returned(delivery)
    assert isinstance(item, Delivery)
    assert item.raw is not None
    compared = {"raw": None, "sent_at": delivery.sent_at if delivery.kind is Kind.EVENT else item.sent_at}
    assert item.model_copy(update=compared) == delivery


@pytest.mark.parametrize(
    "item",
    [
        Delivery(**IN_DM, external_id="Ev1", kind=Kind.EVENT, event="opted_out"),
        IdentityChange(senders=ALICE.senders, external_id="i1"),
    ],
)
def test_what_slack_never_sends_is_not_played(item: Item) -> None:
    with pytest.raises(BadRequest):
        SLACK.sign(URL, item)


def test_an_id_that_is_none_of_slack_s_becomes_one() -> None:
    at_some_time = {**IN_DM, "sent_at": SENT_AT.replace(microsecond=0)}
    [first], [again] = (returned(Delivery(**at_some_time, external_id="msg_1", text="x")) for _ in range(2))
    [other] = returned(Delivery(**at_some_time, external_id="msg_2", text="x"))
    assert first == again
    assert isinstance(first, Delivery)
    assert isinstance(other, Delivery)
    assert first.external_id != other.external_id
    assert first.external_id.startswith(f"T0ONELANE:{DIRECT}:1769000000.")


def test_a_name_is_always_the_same_person_and_no_other() -> None:
    assert SLACK.persona("alice") == ALICE
    assert set(SLACK.persona("bob").senders).isdisjoint(ALICE.senders)
    assert SLACK.persona("\ud800").senders


def test_the_app_that_the_settings_name_is_ours() -> None:
    [own] = returned(Delivery(**OWN, external_id=HERE, text="done"), slack(app_id="A7"))
    assert isinstance(own, Delivery)
    assert own.is_ours


def test_a_large_object_is_kept_without_what_says_the_same_again_or_not_at_all() -> None:
    for text, is_kept in (("x" * 10_000, True), ("x" * 20_000, False)):
        event = {"type": "message", "channel": "D1", "user": "U1", "ts": TS, "text": text, "blocks": [text]}
        body = {"type": "event_callback", "team_id": "T1", "event_id": "Ev1", "event": event}
        [item] = SLACK.parse(posted(json.dumps(body))).items
        assert isinstance(item, Delivery)
        assert item.text == text
        assert item.raw == ({name: value for name, value in event.items() if name != "blocks"} if is_kept else None)


def test_more_actions_than_slack_ever_sends_at_once_are_kept_and_not_taken_one_by_one() -> None:
    actions = [{"action_id": "a", "action_ts": f"1.{nr}"} for nr in range(ACTIONS_MAX + 1)]
    pressed = {"type": "block_actions", "user": {"id": "U1"}, "team": {"id": "T1"}, "actions": actions}
    body = urlencode({"payload": json.dumps(pressed)}).encode()
    assert SLACK.parse(posted(body, FORM)).items == [Quarantined("actions: must have at most 100 entries")]


@pytest.mark.parametrize(
    ("payload", "what", "repairs"),
    [(rb"a%ff", "a?", ("surrogate",)), (rb"a%00\ud83d", "a?", ("nul", "surrogate")), (rb"a\u0000", "a", ("nul",))],
)
def test_what_was_mended_of_a_form_and_of_the_json_in_it_is_named(
    payload: bytes, what: str, repairs: tuple[str, ...]
) -> None:
    action = {"action_id": "a", "action_ts": TS, "value": "WHAT"}
    pressed = {"type": "block_actions", "user": {"id": "U1"}, "team": {"id": "T1"}, "actions": [action]}
    body = urlencode({"payload": json.dumps(pressed)}).encode().replace(b"WHAT", payload)
    [item] = SLACK.parse(posted(body, FORM)).items
    assert isinstance(item, Delivery)
    assert (item.button, item.repairs) == (what, repairs)


def test_a_file_is_fetched_with_the_token_from_slack_alone() -> None:
    [request] = list(SLACK.file(FILE))
    assert (request.url, request.headers) == (FILE.url, {"Authorization": f"Bearer {TOKEN}"})
    assert request.hosts == ("files.slack.com",)
    assert TOKEN not in repr(request)


def test_where_a_file_is_slack_says_by_its_id() -> None:
    steps = SLACK.file(VOICE)
    assert next(steps).url == "https://slack.com/api/files.info?file=F2"
    request = steps.send(b'{"ok": true, "file": {"url_private": "https://files.slack.com/2"}}')
    assert request.url == "https://files.slack.com/2"
    with pytest.raises(StopIteration):
        steps.send(b"the file")


@pytest.mark.parametrize("info", [b"", b'{"ok": false, "error": "file_not_found"}', b'{"file": {"url_private": "x"}}'])
def test_a_file_of_which_slack_does_not_say_where_it_is_cannot_be_fetched(info: bytes) -> None:
    steps = SLACK.file(VOICE)
    next(steps)
    with pytest.raises(BadRequest, match="does not say where"):
        steps.send(info)


def test_a_file_of_nobody_or_without_a_token_cannot_be_fetched() -> None:
    with pytest.raises(BadRequest, match="is no file"):
        SLACK.file(Attachment())
    with pytest.raises(BadRequest, match="no bot_token"):
        slack(bot_token=None).file(FILE)


def test_a_file_without_an_address_is_fetched_from_where_the_settings_say_that_slack_is() -> None:
    async def fetch(steps: FileSteps) -> File:
        async with open_client() as client:
            return await fetched(client, steps, 1_000)

    with serving() as server:
        server.has("/api/files.info?file=F2", json.dumps({"file": {"url_private": f"{server.origin}/2"}}).encode())
        server.has("/2", b"a voice")
        file = loops.run(fetch(slack(base_url=f"{server.origin}/api/").file(VOICE)))
    assert file.content == b"a voice"
    assert server.asked == [("/api/files.info?file=F2", f"Bearer {TOKEN}"), ("/2", f"Bearer {TOKEN}")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"app_id": "a b"}, "^app_id: "), ({"base_url": "ftp://x"}, "^base_url: "), ({"bot_token": "x"}, "^bot_token: ")],
)
def test_an_impossible_setting_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        slack(**changes)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["T1", "UALICE", "UBOT", "DALICE", "C1", TS, "message", "message_changed", "block_actions", "view", "9" * 13]
    )
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
CASES = [case for case in cases() if case.provider == "slack"]


def understood(body: bytes, content_type: str) -> None:
    """Whatever it holds, it is a line, a counted nothing, or kept for an operator."""
    parsed = SLACK.parse(posted(body, content_type))
    assert parsed.answer or parsed.items
    for item in parsed.items:
        assert isinstance(item, Delivery | Ignored | Quarantined)
        if isinstance(item, Delivery):
            stored = json.dumps(item.model_dump(mode="json"), allow_nan=False, ensure_ascii=False)
            assert "\\u0000" not in stored
            stored.encode()
            assert 1 <= len(item.external_id) <= 256
            assert all(item.senders)


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()), st.sampled_from(TYPES))
def test_anything_signed_is_understood_or_kept(body: bytes, content_type: str) -> None:
    understood(body, content_type)


@given(st.dictionaries(st.sampled_from(["type", "user", "channel", "ts", "text", "item", "message"]), VALUES), VALUES)
def test_any_event_in_an_envelope_is_understood_or_kept(event: dict[str, Any], authorizations: Any) -> None:
    body = {"type": "event_callback", "team_id": "T1", "event_id": "Ev1", "event": event}
    understood(json.dumps({**body, "authorizations": authorizations}).encode(), JSON)


def mutated(draw: Callable[[st.SearchStrategy[Any]], Any], value: Any) -> Any:
    """Put something else somewhere into a value."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 9)) == 0:
        return draw(VALUES)
    place = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    changed = mutated(draw, value[place])
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    copied[place] = changed
    return copied


@settings(max_examples=200)
@given(st.data(), st.sampled_from(CASES))
def test_any_change_of_a_good_webhook_is_understood_or_kept(data: st.DataObject, case: Case) -> None:
    original = case.unsigned()
    if original.content_type == JSON and "body" in case.request:
        understood(json.dumps(mutated(data.draw, case.request["body"])).encode(), JSON)
    elif isinstance(form := case.request.get("form"), dict):
        changed = {name: mutated(data.draw, value) for name, value in form.items()}
        understood(replace(case, request={"form": changed}).unsigned().body, FORM)
