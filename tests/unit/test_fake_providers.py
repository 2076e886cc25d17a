"""The fakes of the providers: what they refuse, what they show, each way to go wrong, and what they call back."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID, uuid4

import httpx2
import pytest
import slack_sdk
from slack_sdk.errors import SlackApiError
from twilio.base.exceptions import TwilioRestException
from twilio.rest import Client as TwilioClient

from onelane.channels import Inbound, Parsed, provider_of
from onelane.channels.meta import codes as meta_codes
from onelane.channels.sender import Sender
from onelane.channels.sending import Outgoing, Piece, Request, Sign, SignKind, Uploading
from onelane.channels.slack import codes as slack_codes
from onelane.channels.standard import codes as standard_codes
from onelane.channels.telegram import codes as telegram_codes
from onelane.channels.telegram.codes import DESCRIBED
from onelane.channels.twilio import codes as twilio_codes
from onelane.channels.verdicts import Meaning, Outcome, Response, Verdict, Word
from onelane.config import Channel
from onelane.dev.embedded.redis import free_port
from onelane.model import Attachment, AttachmentKind, JsonObject
from onelane.testing.fake_providers import FAULTS, FakeProviders, Fault, Visible, fake_providers
from onelane.testing.fake_providers.__main__ import APIS, apis_in
from onelane.testing.fake_providers.running import ADDRESSES
from tests.conftest import SECRET, eventually
from tests.payloads import ON_THE_NET

ACCOUNT = "AC" + "0" * 32
TOKEN = "0123456789abcdef0123456789abcdef"
BOT_TOKEN = f"123456:{TOKEN}"
CHANNELS = {
    "demo": Channel(provider="standard", secrets=[SECRET]),
    "meta": Channel(provider="meta", secrets=[TOKEN], access_token="a-system-users-token", phone_number_id="42"),
    "slack": Channel(provider="slack", secrets=[TOKEN], bot_token="xoxb-0123456789abcdef"),
    "telegram": Channel(provider="telegram", secrets=[TOKEN], bot_token=BOT_TOKEN),
    "twilio": Channel(provider="twilio", secrets=[TOKEN], account_sid=ACCOUNT),
}
PATIENT, SOON = httpx2.Timeout(60), httpx2.Timeout(60, read=0.5)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProviders]:
    with fake_providers(CHANNELS, tmp_path_factory.mktemp("fakes") / "journal.jsonl") as fakes:
        yield fakes


@pytest.fixture
def fakes(running: FakeProviders) -> FakeProviders:
    running.clear()
    running.call_back(when="never")
    running.tell("duplicates", channel="slack", duplicates="same")
    return running


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False) as client:
        yield client


@dataclass
class Reply:
    """A reply, as the channel's own adapter sends it."""

    channel: str
    text: str = field(default_factory=lambda: f"text {uuid4()}")
    key: UUID = field(default_factory=uuid4)
    callback: str | None = None

    @property
    def user(self) -> str:
        return {"demo": "alice", "meta": "15550101", "slack": "D1", "telegram": "7", "twilio": "+15550101"}[
            self.channel
        ]

    @property
    def outgoing(self) -> Outgoing:
        routes: dict[str, JsonObject] = {"twilio": {"from": "+15550100"}, "telegram": {"chat_id": 7}}
        callback = f"{self.callback}/webhooks/{self.channel}" if self.callback else None
        return Outgoing(self.key, (self.user,), Piece(text=self.text), routes.get(self.channel), callback_url=callback)


def sender_of(fakes: FakeProviders, channel: str) -> Sender:
    found = provider_of(fakes.pointed(channel, CHANNELS[channel])).sender
    assert found
    return found


def made(request: Request) -> httpx2.Request:
    return httpx2.Request(request.method, request.url, headers=dict(request.headers), content=request.body)


def answered(answer: httpx2.Response) -> Response:
    return Response(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content)


def shown(fakes: FakeProviders, reply: Reply) -> list[Visible]:
    return [one for one in fakes.received.visible(reply.channel) if one.text == reply.text]


def send(
    client: httpx2.Client, fakes: FakeProviders, reply: Reply, timeout: httpx2.Timeout = PATIENT
) -> httpx2.Response:
    request = made(sender_of(fakes, reply.channel).request(reply.outgoing))
    request.extensions["timeout"] = timeout.as_dict()
    return client.send(request)


each_provider = pytest.mark.parametrize("channel", sorted(CHANNELS))
UNKEYED = {"telegram", "twilio"}
"""Telegram takes no key; Twilio takes it in the address for statuses, if there is one."""


@each_provider
def test_what_is_sent_is_visible_before_it_is_answered(
    channel: str, fakes: FakeProviders, client: httpx2.Client
) -> None:
    reply = Reply(channel)
    answer = send(client, fakes, reply)
    assert answer.is_success
    [message] = shown(fakes, reply)
    assert message.key == (None if channel in UNKEYED else str(reply.key))
    assert message.user == reply.user
    assert sender_of(fakes, channel).judge(reply.outgoing, answered(answer)).outcome is Outcome.ACCEPTED
    [received] = fakes.received.lines("received", n=message.n)
    assert received["fault"] is None
    assert received["at"] <= message.at


@each_provider
def test_a_wrong_token_is_refused_as_the_provider_does(
    channel: str, fakes: FakeProviders, client: httpx2.Client
) -> None:
    reply = Reply(channel)
    request = made(sender_of(fakes, channel).request(reply.outgoing))
    if channel == "telegram":
        request.url = httpx2.URL(str(request.url).replace(BOT_TOKEN, f"123456:{'x' * 32}"))
    for name in {"authorization", "webhook-signature"} & {name.lower() for name in request.headers}:
        request.headers[name] = "Bearer x" if name == "authorization" else "v1,x"
    answer = client.send(request)
    assert answer.status_code == (200 if channel == "slack" else 401)
    assert {"meta": 190, "twilio": 20003, "slack": "invalid_auth", "telegram": 401}.get(channel) in _codes(answer)
    assert not shown(fakes, reply)
    assert TOKEN not in json.dumps(fakes.received.lines())


def _codes(answer: httpx2.Response) -> list[object]:
    """List whatever in the answer may be a provider's code."""
    body = answer.json()
    error = body.get("error")
    return [None, body.get("code"), body.get("error_code"), *(error.values() if isinstance(error, dict) else [error])]


@each_provider
def test_a_limit_names_the_time_to_come_again(channel: str, fakes: FakeProviders, client: httpx2.Client) -> None:
    fakes.plan(Fault("limit", wait_s=7), channel=channel)
    reply = Reply(channel)
    answer = send(client, fakes, reply)
    assert answer.status_code == 429
    told = answer.json().get("parameters", {}).get("retry_after") or int(answer.headers["Retry-After"])
    assert told == 7
    assert not shown(fakes, reply)
    assert send(client, fakes, reply).is_success, "only the next request was limited"
    assert len(shown(fakes, reply)) == 1


TABLES: list[tuple[str, dict[str, Meaning]]] = [
    ("demo", {**standard_codes.CODES}),
    ("meta", {**meta_codes.CODES}),
    ("slack", {code.replace("*", "x"): meaning for code, meaning in slack_codes.CODES.items()}),
    ("telegram", {**telegram_codes.CODES, **{f"{code}: {why}": found for (code, why), found in DESCRIBED.items()}}),
    ("twilio", {**twilio_codes.CODES}),
]


@pytest.mark.parametrize(("channel", "codes"), TABLES, ids=[channel for channel, _ in TABLES])
def test_each_code_of_a_provider_is_written_as_its_adapter_reads_it(
    channel: str, codes: dict[str, Meaning], fakes: FakeProviders
) -> None:
    api = APIS[CHANNELS[channel].provider](channel, CHANNELS[channel])
    for code, meaning in codes.items():
        refusal, out = api.refusal(code), Reply(channel).outgoing
        headers = {name.lower(): value for name, value in refusal.headers.items()}
        found = sender_of(fakes, channel).judge(out, Response(refusal.status, headers, refusal.body))
        assert (found.outcome, found.word) == (meaning.outcome, meaning.word), code


@each_provider
def test_a_code_refuses_the_next_send_and_shows_nothing(
    channel: str, fakes: FakeProviders, client: httpx2.Client
) -> None:
    code = {"demo": "410", "meta": "131047", "slack": "is_archived", "telegram": "403", "twilio": "21610"}[channel]
    fakes.plan(Fault("answer", code=code), channel=channel)
    reply = Reply(channel)
    verdict = sender_of(fakes, channel).judge(reply.outgoing, answered(send(client, fakes, reply)))
    assert verdict.outcome in {Outcome.NEVER, Outcome.BROKEN}
    assert verdict.code == code
    assert not shown(fakes, reply)


@pytest.mark.parametrize("channel", ["slack", "twilio"])
def test_the_adapter_finds_by_look_up_what_was_dropped_and_sees_what_never_came(
    channel: str, fakes: FakeProviders, client: httpx2.Client
) -> None:
    fakes.plan("accept_and_drop", "closed", channel=channel)
    since, accepted, lost = datetime.now(UTC), Reply(channel), Reply(channel)
    for reply in (accepted, lost):
        with pytest.raises(httpx2.RemoteProtocolError):
            send(client, fakes, reply)
    found = looked_up(client, fakes, accepted, since)
    assert found.outcome is Outcome.ACCEPTED
    [message] = shown(fakes, accepted)
    assert (found.provider_id or "").endswith(message.provider_id)
    others = {one.provider_id: one.text for one in fakes.received.visible("twilio")}
    assert looked_up(client, fakes, lost, since, others).word is Word.ABSENT


@pytest.mark.parametrize("channel", ["slack", "twilio"])
def test_the_journal_says_whom_a_look_up_asks_for(channel: str, fakes: FakeProviders, client: httpx2.Client) -> None:
    reply = Reply(channel)
    send(client, fakes, reply)
    looked_up(client, fakes, reply, datetime.now(UTC))
    [message] = shown(fakes, reply)
    assert fakes.received.lines("received", what="look_up", channel=channel)[-1]["user"] == message.user


def looked_up(
    client: httpx2.Client, fakes: FakeProviders, reply: Reply, since: datetime, others: Mapping[str, str] | None = None
) -> Verdict:
    steps = sender_of(fakes, reply.channel).look_up(reply.outgoing, since, others or {})
    assert steps
    request = next(steps)
    while True:
        try:
            request = steps.send(answered(client.send(made(request))))
        except StopIteration as end:
            return end.value


def test_a_long_list_is_read_page_by_page(fakes: FakeProviders, client: httpx2.Client) -> None:
    sdk_page = {"To": "+15550109", "PageSize": "2"}
    base, login = fakes.address("twilio"), httpx2.BasicAuth(ACCOUNT, TOKEN)
    address = f"{base}/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
    for number in range(5):
        form = {"To": "+15550109", "From": "+15550100", "Body": str(number)}
        assert client.post(address, data=form, auth=login).status_code == 201
    page = client.get(address, params=sdk_page, auth=login).json()
    bodies = [one["body"] for one in page["messages"]]
    while page["next_page_uri"]:
        page = client.get(f"{fakes.base_url}{page['next_page_uri']}", auth=login).json()
        bodies += [one["body"] for one in page["messages"]]
    assert bodies == ["4", "3", "2", "1", "0"]


def test_a_group_of_telegram_that_has_moved_names_its_new_chat(fakes: FakeProviders, client: httpx2.Client) -> None:
    fakes.plan(Fault("answer", code="migrate: -1007"), channel="telegram")
    assert send(client, fakes, Reply("telegram")).json()["parameters"] == {"migrate_to_chat_id": -1007}


LOOKS: list[tuple[str, int | type[Exception], int]] = [
    ("500", 500, 0),
    ("502_accepted", 502, 1),
    ("503", 503, 0),
    ("unread", httpx2.ReadTimeout, 0),
    ("silent", httpx2.ReadTimeout, 0),
    ("accept_and_silent", httpx2.ReadTimeout, 1),
    ("half", httpx2.RemoteProtocolError, 0),
    ("accept_and_half", httpx2.RemoteProtocolError, 1),
    ("garbage", httpx2.RemoteProtocolError, 0),
    ("accept_and_garbage", httpx2.RemoteProtocolError, 1),
    ("closed", httpx2.RemoteProtocolError, 0),
    ("accept_and_drop", httpx2.RemoteProtocolError, 1),
    ("reset", httpx2.ReadError, 0),
    ("accept_and_reset", httpx2.ReadError, 1),
    ("accept_twice", 200, 2),
    ("closes", 200, 1),
    ("none", 200, 1),
]
"""Each fault: what its sender gets, and how often the message becomes visible."""


@pytest.mark.parametrize(("name", "error", "times"), LOOKS, ids=[name for name, _, _ in LOOKS])
def test_each_fault_looks_to_the_sender_as_it_should_and_shows_what_it_should(
    name: str, error: int | type[Exception], times: int, fakes: FakeProviders, client: httpx2.Client
) -> None:
    fakes.plan(name, channel="meta")
    reply = Reply("meta")
    if isinstance(error, int):
        assert send(client, fakes, reply).status_code == error
    else:
        with pytest.raises(error):
            send(client, fakes, reply, SOON if error is httpx2.ReadTimeout else PATIENT)
    [received] = eventually(lambda: fakes.received.lines("received", text=reply.text))
    eventually(lambda: len(shown(fakes, reply)) == times)
    assert str(reply.key) not in fakes.received.doubles(), "what the provider doubles is not the sender's"
    assert received["fault"] == (None if name == "none" else name)


def test_every_fault_has_a_test() -> None:
    assert {*FAULTS} == {name for name, _, _ in LOOKS} | {"slow", "limit"}


def test_a_slow_answer_comes_after_the_message_is_visible(fakes: FakeProviders, client: httpx2.Client) -> None:
    fakes.plan(Fault("answer", times=1, wait_s=3_600))
    reply = Reply("slack")
    with pytest.raises(httpx2.ReadTimeout):
        send(client, fakes, reply, SOON)
    eventually(lambda: len(shown(fakes, reply)) == 1)


def raw_connection(fakes: FakeProviders) -> socket.socket:
    return socket.create_connection(("127.0.0.1", httpx2.URL(fakes.base_url).port or 0), timeout=60)


def by_hand(text: str) -> bytes:
    """Write a request for Telegram, in chunks."""
    body = json.dumps({"chat_id": 8, "text": text}).encode()
    head = f"POST /telegram/bot{BOT_TOKEN}/sendMessage HTTP/1.1\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def test_a_kept_connection_is_closed_after_a_whole_answer_that_does_not_announce_it(fakes: FakeProviders) -> None:
    fakes.plan("closes", channel="telegram")
    with raw_connection(fakes) as connection:
        connection.sendall(by_hand("text"))
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"close" not in answer.lower()


def test_a_connection_is_kept_and_its_requests_are_answered_in_order(fakes: FakeProviders) -> None:
    texts = [f"text {uuid4()}" for _ in range(2)]
    with raw_connection(fakes) as connection:
        connection.sendall(b"".join(map(by_hand, texts)))
        connection.shutdown(socket.SHUT_WR)
        answers = connection.makefile("rb").read()
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.index(texts[0].encode()) < answers.index(texts[1].encode())
    assert fakes.received.texts("8")[-2:] == texts


@pytest.mark.parametrize("sent", [b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"x" * 100_000])
def test_what_is_no_http_ends_its_own_connection_alone(
    sent: bytes, fakes: FakeProviders, client: httpx2.Client
) -> None:
    with suppress(ConnectionError), raw_connection(fakes) as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""
    assert send(client, fakes, Reply("meta")).is_success


def test_a_deaf_provider_refuses_connections_and_comes_back(fakes: FakeProviders, client: httpx2.Client) -> None:
    fakes.tell("deaf", for_s=4)

    def is_refused() -> bool:
        try:
            send(client, fakes, Reply("meta"))
        except httpx2.HTTPError as error:
            return isinstance(error, httpx2.ConnectError)
        return False

    assert eventually(is_refused)
    assert eventually(lambda: not is_refused())


def test_what_is_repeated_with_its_key_is_shown_once_where_the_provider_sees_it(
    fakes: FakeProviders, client: httpx2.Client
) -> None:
    for channel in ("demo", "slack"):
        reply = Reply(channel)
        first, second = (send(client, fakes, reply) for _ in range(2))
        assert first.json().get("ts") == second.json().get("ts")
        assert len(shown(fakes, reply)) == 1
        assert len(fakes.received.lines("repeated", key=str(reply.key))) == 1
        assert str(reply.key) not in fakes.received.doubles()


@pytest.mark.parametrize("channel", ["meta", "telegram", "twilio"])
def test_what_is_sent_twice_is_a_double_where_the_provider_does_not_see_it(
    channel: str, fakes: FakeProviders, client: httpx2.Client
) -> None:
    reply = Reply(channel)
    assert all(send(client, fakes, reply).is_success for _ in range(2))
    seen = key if (key := shown(fakes, reply)[0].key) else f"{channel} {shown(fakes, reply)[0].user} {reply.text}"
    assert fakes.received.doubles()[seen] == 2


@pytest.mark.parametrize(("way", "visible"), [("shown", 2), ("refused", 1)])
def test_what_slack_does_with_a_known_client_msg_id_can_be_chosen(
    way: str, visible: int, fakes: FakeProviders, client: httpx2.Client
) -> None:
    fakes.tell("duplicates", channel="slack", duplicates=way)
    reply = Reply("slack")
    answers = [send(client, fakes, reply).json() for _ in range(2)]
    assert answers[0]["ok"]
    assert answers[1].get("error") == ("duplicate_message_not_found" if way == "refused" else None)
    assert len(shown(fakes, reply)) == visible


def test_a_fault_can_be_meant_for_what_holds_a_text(fakes: FakeProviders, client: httpx2.Client) -> None:
    fakes.plan("503", channel="telegram", text="the second")
    answers = [send(client, fakes, Reply("telegram", text)) for text in ("the first", "the second", "the second")]
    assert [answer.status_code for answer in answers] == [200, 503, 200]


def test_chance_is_the_same_again_with_the_same_seed(fakes: FakeProviders, client: httpx2.Client) -> None:
    def played() -> list[int]:
        fakes.play("503", "none", share=0.5, seed=7, channel="telegram")
        return [send(client, fakes, Reply("telegram")).status_code for _ in range(20)]

    first = played()
    assert {200, 503} == {*first}
    assert played() == first


def test_each_channel_has_a_chance_of_its_own(fakes: FakeProviders, client: httpx2.Client) -> None:
    fakes.play("503", share=1, channel="telegram")
    fakes.play("500", share=1, channel="meta")
    fakes.play("none", share=1)
    answers = {channel: send(client, fakes, Reply(channel)).status_code for channel in ("telegram", "meta", "slack")}
    assert answers == {"telegram": 503, "meta": 500, "slack": 200}


def test_every_provider_on_the_net_has_a_fake() -> None:
    assert APIS.keys() == ADDRESSES.keys() == set(ON_THE_NET)


def test_the_channels_of_the_service_have_fakes_wherever_they_are_configured() -> None:
    found = apis_in(
        {
            "CHANNELS": json.dumps({"demo": {"provider": "demo", "secrets": [SECRET]}}),
            "CHANNEL_TEAM": json.dumps({"provider": "slack", "secrets": [TOKEN]}),
        }
    )
    assert {name: type(api) for name, api in found.items()} == {"team": APIS["slack"]}


def test_a_fault_waits_for_the_request_that_it_is_for(fakes: FakeProviders, client: httpx2.Client) -> None:
    fakes.plan("503", count=2, channel="telegram")
    assert send(client, fakes, Reply("slack")).is_success
    assert [send(client, fakes, Reply("telegram")).status_code for _ in range(3)] == [503, 503, 200]


def test_without_the_token_nobody_changes_anything(fakes: FakeProviders, client: httpx2.Client) -> None:
    answer = client.post(f"{fakes.base_url}/.control/faults", json={"faults": ["503"]})
    assert answer.status_code == 401
    assert fakes.tell("state")["planned"] == 0
    with pytest.raises(ValueError, match="must be one of"):
        fakes.plan("no_such_fault")


@pytest.mark.parametrize(
    ("channel", "message_id", "route"),
    [
        ("meta", "wamid.1", None),
        ("slack", "T1:D1:1.000001", {"channel": "D1", "thread_ts": "1.000001"}),
        ("telegram", "7:1", {"chat_id": 7}),
    ],
)
def test_signs_are_no_messages(
    channel: str, message_id: str, route: dict[str, object] | None, fakes: FakeProviders, client: httpx2.Client
) -> None:
    before = len(fakes.received.visible())
    request = sender_of(fakes, channel).presence(Sign(SignKind.TYPING, message_id, route=route))
    assert request
    assert client.send(made(request)).is_success
    assert fakes.received.lines("shown")[-1]["kind"] == "typing"
    assert len(fakes.received.visible()) == before


@pytest.mark.parametrize("kind", [AttachmentKind.IMAGE, AttachmentKind.FILE])
@pytest.mark.parametrize("channel", ["demo", "meta", "slack", "telegram"])
def test_a_file_by_its_bytes_arrives_with_its_text(
    channel: str, kind: AttachmentKind, fakes: FakeProviders, client: httpx2.Client
) -> None:
    sender, reply, file_id = sender_of(fakes, channel), Reply(channel), uuid4()
    media = Attachment(file=file_id, kind=kind, name="a.bin", content_type="image/png")
    if steps := sender.upload(media, b"\0\xff\r\n--", reply.outgoing):
        media = handed_over(steps, client)
    for piece in sender.pieces(Piece(text=reply.text, media=(media,))):  # Slack has no text with a link
        out = replace(reply.outgoing, key=uuid4(), piece=piece, files={file_id: b"\0\xff\r\n--"})
        answer = answered(client.send(made(sender.request(out))))
        assert sender.judge(out, answer).outcome is Outcome.ACCEPTED
    [seen] = [one for one in fakes.received.visible(channel) if one.text == reply.text]
    assert seen.user == reply.user


def handed_over(steps: Uploading, client: httpx2.Client) -> Attachment:
    """Make an upload's requests."""
    request = next(steps)
    try:
        while True:
            request = steps.send(answered(client.send(made(request))))
    except StopIteration as ended:
        found: Attachment = ended.value
    return found


@each_provider
def test_a_probe_is_well_with_the_token_and_not_without(
    channel: str, fakes: FakeProviders, client: httpx2.Client
) -> None:
    sender = sender_of(fakes, channel)
    if probe := sender.probe():
        assert sender.is_well(answered(client.send(made(probe))))
        code = {"meta": "190", "slack": "invalid_auth", "telegram": "401", "twilio": "20003"}[channel]
        fakes.plan(Fault("answer", code=code), channel=channel, what="other")
        assert not sender.is_well(answered(client.send(made(probe))))
    else:
        assert channel == "demo"


def test_telegram_takes_a_file_in_parts_and_leads_to_one(fakes: FakeProviders, client: httpx2.Client) -> None:
    base = f"{fakes.base_url}/telegram"
    sent = client.post(
        f"{base}/bot{BOT_TOKEN}/sendPhoto",
        data={"chat_id": "9", "caption": "look"},
        files={"photo": ("a.png", b"\x89PNG")},
    )
    assert sent.json()["ok"]
    [message] = fakes.received.by_user("telegram")["9"]
    assert (message.kind, message.text) == ("photo", "look")
    path = client.get(f"{base}/bot{BOT_TOKEN}/getFile", params={"file_id": "F1"}).json()["result"]["file_path"]
    assert client.get(f"{base}/file/bot{BOT_TOKEN}/{path}").content


def test_the_sdk_of_slack_sends_finds_its_message_again_and_shows_that_it_thinks(fakes: FakeProviders) -> None:
    sdk = slack_sdk.WebClient("xoxb-0123456789abcdef", base_url=f"{fakes.address('slack')}/")
    key = str(uuid4())
    assert sdk.auth_test()["ok"]
    metadata = {"event_type": "onelane_reply", "event_payload": {"id": key}}
    root = sdk.chat_postMessage(channel="C1", text="root", metadata=metadata)["ts"]
    answer = sdk.chat_postMessage(channel="C1", thread_ts=root, text="in the thread", client_msg_id=key)
    found = sdk.conversations_replies(channel="C1", ts=root, include_all_metadata=True)["messages"]
    assert [message["ts"] for message in found] == [root, answer["ts"]]
    assert found[0]["metadata"] == metadata
    history = sdk.conversations_history(channel="C1", oldest=root, inclusive=True, limit=1)["messages"]
    assert [message["text"] for message in history] == ["root"]
    assert "metadata" not in history[0], "only who asks gets it"
    assert sdk.assistant_threads_setStatus(channel_id="C1", thread_ts=root, status="is thinking")["ok"]
    assert [one.key for user in ("C1", f"C1:{root}") for one in fakes.received.by_user()[user]] == [key, key]
    fakes.plan(Fault("answer", code="is_archived"), channel="slack")
    with pytest.raises(SlackApiError, match="is_archived"):
        sdk.chat_postMessage(channel="C1", text="too late")


def test_the_sdk_of_slack_sends_again_what_was_read_and_dropped(fakes: FakeProviders) -> None:
    """It is what the outbox must not do; the fakes show it."""
    sdk = slack_sdk.WebClient("xoxb-0123456789abcdef", base_url=f"{fakes.address('slack')}/")
    fakes.plan("accept_and_drop", channel="slack")
    reply = Reply("slack")
    assert sdk.chat_postMessage(channel="D2", text=reply.text)["ok"]
    assert len(shown(fakes, reply)) == 2
    assert fakes.received.doubles("slack")[f"slack D2 {reply.text}"] == 2


def test_the_sdk_of_twilio_sends_and_lists_what_it_has_sent(fakes: FakeProviders) -> None:
    sdk = TwilioClient(ACCOUNT, TOKEN)
    sdk.api.base_url = fakes.address("twilio")
    text = f"text {uuid4()}"
    sent = sdk.messages.create(to="+15550107", from_="+15550100", body=text)
    assert sent.status == "queued"
    assert [one.body for one in sdk.messages.list(to="+15550107", from_="+15550100")] == [text]
    assert [one.sid for one in sdk.messages.list(to="+15550107", date_sent_after=sent.date_created)] == [sent.sid]
    assert sdk.messages.list(to="+15550108") == []
    assert sdk.messages(sent.sid).fetch().body == text
    with pytest.raises(TwilioRestException) as refused:
        sdk.messages.create(to="+15550107", from_="+15550100", body="x" * 1601)
    assert refused.value.code == 21617


@dataclass
class Service:
    """The service that is called back: it verifies what comes, as ours does, and answers what it was told."""

    address: str = ""
    parsed: list[tuple[str, Parsed]] = field(default_factory=list)
    refuse: int = 0
    problems: list[Exception] = field(default_factory=list)

    def states(self, channel: str) -> list[str]:
        return [item.state for name, one in self.parsed if name == channel for item in one.items]  # type: ignore[union-attr]


@contextmanager
def service() -> Iterator[Service]:
    found = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            channel = self.path.split("?")[0].rpartition("/")[2]
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Inbound(f"{found.address}{self.path}", headers, headers["content-type"], body)
            provider = provider_of(CHANNELS[channel])
            status, found.refuse = (503, found.refuse - 1) if found.refuse else (200, 0)
            try:
                provider.verify(request)
                found.parsed.append((channel, provider.parse(request)))
            except Exception as problem:  # noqa: BLE001 - the test shows it
                found.problems.append(problem)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("channel", ["meta", "twilio"])
def test_statuses_come_back_signed_with_the_key_also_of_what_was_never_answered(
    channel: str, fakes: FakeProviders, client: httpx2.Client
) -> None:
    with service() as called:
        fakes.call_back(url=called.address, states=["sent", "delivered", "read"])
        fakes.plan("accept_and_drop", channel=channel)
        reply = Reply(channel, callback=called.address)
        with pytest.raises(httpx2.RemoteProtocolError):
            send(client, fakes, reply)
        eventually(lambda: len(called.parsed) == 3 or called.problems)
        assert called.states(channel) == ["sent", "delivered", "read"]
        assert {str(item.key) for _, one in called.parsed for item in one.items} == {str(reply.key)}  # type: ignore[union-attr]
        [message] = shown(fakes, reply)
        assert {item.provider_id for _, one in called.parsed for item in one.items} == {message.provider_id}  # type: ignore[union-attr]
        eventually(lambda: len(fakes.received.lines("callback", provider_id=message.provider_id)) == 3)
        assert not called.problems


def test_callbacks_come_before_the_answer_late_doubled_shuffled_or_never(
    fakes: FakeProviders, client: httpx2.Client
) -> None:
    with service() as called:
        fakes.call_back(url=called.address, when="before", states=["sent", "delivered"], doubled=True)
        send(client, fakes, Reply("meta"))
        assert called.states("meta") == ["sent", "sent", "delivered", "delivered"]
        fakes.call_back(when="late", late_s=0.3, states=["sent"])
        late = Reply("meta")
        send(client, fakes, late)
        [message] = shown(fakes, late)
        [callback] = eventually(lambda: fakes.received.lines("callback", provider_id=message.provider_id))
        assert callback["at"] >= message.at + 0.3
        assert len(called.parsed) == 5
        fakes.call_back(when="before", states=["sent", "delivered", "read"], shuffled=True, seed=1)
        send(client, fakes, Reply("meta"))
        assert sorted(called.states("meta")[5:]) == ["delivered", "read", "sent"]
        assert called.states("meta")[5:] != ["sent", "delivered", "read"]
        fakes.call_back(when="never")
        send(client, fakes, Reply("meta"))
        assert fakes.tell("state")["pending"] == 0
        assert len(called.parsed) == 8
        assert not called.problems


def test_what_fails_later_is_never_visible_and_its_status_says_why(fakes: FakeProviders, client: httpx2.Client) -> None:
    with service() as called:
        fakes.call_back(url=called.address, when="before")
        fakes.plan(Fault("answer", times=1, later="131026"), channel="meta")
        reply = Reply("meta")
        assert send(client, fakes, reply).is_success
        [(_, parsed)] = called.parsed
        assert [(item.state, item.failure_code) for item in parsed.items] == [("failed", "131026")]  # type: ignore[union-attr]
        assert not shown(fakes, reply)


def test_a_provider_that_delivers_again_does_so_and_the_other_does_not(
    fakes: FakeProviders, client: httpx2.Client
) -> None:
    with service() as called:
        fakes.call_back(url=called.address, when="before", states=["sent"])
        for channel, times in (("meta", 2), ("twilio", 1)):
            called.refuse = 1
            send(client, fakes, Reply(channel, callback=called.address))
            assert called.states(channel) == ["sent"] * times


def test_echoes_of_our_own_and_of_a_colleague_are_reported(fakes: FakeProviders, client: httpx2.Client) -> None:
    with service() as called:
        fakes.call_back(url=called.address, when="before", echoes=True)
        reply = Reply("slack")
        send(client, fakes, reply)
        [(_, parsed)] = called.parsed
        assert [line.text for line in parsed.deliveries] == [reply.text]
        fakes.tell("echo", channel="meta", user="15550101", text="from the phone app")
        eventually(lambda: len(called.parsed) == 2)
        assert [line.kind for line in called.parsed[1][1].deliveries] == ["echo"]
        assert not called.problems


@pytest.mark.slow
def test_the_fakes_end_with_whoever_started_them(tmp_path: Path) -> None:
    code = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-m", "onelane.testing.fake_providers", "--port", str(free_port()), "--log"]
    started = [sys.executable, "-c", code, *command, str(tmp_path / "journal")]
    parent = subprocess.run(started, capture_output=True, text=True, timeout=60, check=False)
    pid = int(parent.stdout)
    assert parent.returncode == -signal.SIGKILL
    assert eventually(lambda: not _lives(pid))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return b"fake_providers" in Path(f"/proc/{pid}/cmdline").read_bytes()
