import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from gunicorn.config import Config
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from onelane.bootstrap import Services
from onelane.channels import provider_of, providers
from onelane.config import Channel, Settings
from onelane.deliveries import Accepted, Delivery, Status
from onelane.errors import BacklogFull, StoreRefused, StoreUnavailable
from onelane.inbox.fullness import Fullness
from onelane.inbox.refusals import Outcome
from onelane_web import create_app, gunicorn_settings, webhook
from onelane_web.few_lines import LINES_MAX, WINDOW_S, FewLines
from onelane_web.serving.answer import WAITED_S
from tests.in_memory import KeptRequests, KeptStatuses, receiving

DEMO = Channel(provider="standard", secrets=("whsec_c2VjcmV0IG9mIHRoZSBkZW1vIGNoYW5uZWw=",))
SUPPORT = Channel(provider="twilio", secrets=("twilio-auth-token",), public_url="https://bot.example/hooks/")
TEAM = Channel(provider="slack", secrets=("slack-signing-secret",))
BARE = Channel(provider="twilio", secrets=("twilio-auth-token",))
ALICE = uuid4()
HELLO = Delivery(senders=("+33612345678",), external_id="m1", text="a secret wish")


class FakeIntake:
    """Numbers deliveries in memory, or fails as it is told."""

    def __init__(self) -> None:
        self.known: dict[str, Accepted] = {}
        self.failure: Exception | None = None

    def outcomes(
        self, channel: str, deliveries: Sequence[Delivery], note: Callable[[Accepted], object], **_how: object
    ) -> Sequence[Outcome]:
        if self.failure:
            return [self.failure for _ in deliveries]
        accepted = [self._accept(one) for one in deliveries]
        for message in accepted:
            note(message)
        return accepted

    def _accept(self, one: Delivery) -> Accepted:
        if one.external_id in self.known:
            return self.known[one.external_id].model_copy(update={"duplicate": True})
        new = Accepted(message_id=uuid4(), user_id=ALICE, seq=len(self.known) + 1, duplicate=False, is_waiting=True)
        return self.known.setdefault(one.external_id, new)


def answers() -> list[Any]:
    return []


def services(**settings: Any) -> Any:
    """Wire what the web needs of the services; database and lanes answer."""
    channels = {"demo": DEMO, "support": SUPPORT, "bare": BARE, "team": TEAM}
    intake, quarantine, by_channel = FakeIntake(), KeptRequests(), providers(channels)
    return SimpleNamespace(
        settings=Settings(
            database_url="postgresql://secret-host/db", redis_url="redis://secret-host", channels=channels, **settings
        ),
        providers=by_channel,
        intake=intake,
        quarantine=quarantine,
        receiving=receiving(by_channel, intake, quarantine=quarantine),
        database=SimpleNamespace(ping=answers, rows=lambda *_: answers()),
        lanes=SimpleNamespace(ping=answers, client=SimpleNamespace(set=lambda *_, **__: None)),
    )


def client_of(made: Any) -> FlaskClient:
    return create_app(cast("Services", made)).test_client()


def test_the_debugging_of_another_project_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert not create_app(cast("Services", services())).debug


@pytest.fixture
def fake() -> Any:
    return services(body_max_bytes=4_096)


@pytest.fixture
def client(fake: Any) -> FlaskClient:
    return client_of(fake)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


def deliver(client: FlaskClient, delivery: Delivery = HELLO, **how: Any) -> TestResponse:
    signed = provider_of(DEMO).sign("", delivery)
    headers = {**signed.headers, **how.pop("headers", {})}
    return client.post("/webhooks/demo", **{"data": signed.body, "headers": headers, **how})


def deliver_form(client: FlaskClient, url: str, path: str, **how: Any) -> TestResponse:
    """Post what Twilio signed for `url` to `path`."""
    signed = provider_of(SUPPORT).sign(url, HELLO)
    return client.post(path, data=signed.body, headers={**signed.headers, **how})


def test_a_message_is_accepted_with_its_number(client: FlaskClient) -> None:
    response = deliver(client)
    assert response.status_code == 202
    told = response.json or {}
    assert UUID(told.pop("message_id"))
    assert told == {"user_id": str(ALICE), "seq": 1, "duplicate": False}


def test_the_same_message_again_is_a_duplicate_with_the_same_answer(client: FlaskClient) -> None:
    first, second = deliver(client), deliver(client)
    assert second.status_code == 202
    assert second.json == {**cast("dict[str, Any]", first.json), "duplicate": True}


def test_twilio_is_answered_with_empty_twiml(client: FlaskClient) -> None:
    response = deliver_form(client, "https://bot.example/hooks/webhooks/support", "/webhooks/support")
    assert (response.status_code, response.mimetype) == (200, "text/xml")
    assert response.text.endswith("<Response/>")


def test_the_query_is_part_of_the_signed_address(client: FlaskClient) -> None:
    url = "https://bot.example/hooks/webhooks/support?a=%20b&c"
    assert deliver_form(client, url, "/webhooks/support?a=%20b&c").status_code == 200
    assert deliver_form(client, url, "/webhooks/support?a=b").status_code == 401


def test_the_address_a_proxy_reports_is_believed_only_as_configured() -> None:
    proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "bot.example", "X-Forwarded-Port": "443"}
    url = "https://bot.example/webhooks/bare"
    believing, doubting = client_of(services(proxy_hops=1)), client_of(services())
    assert deliver_form(believing, url, "/webhooks/bare", **proxied).status_code == 200
    assert deliver_form(doubting, url, "/webhooks/bare", **proxied).status_code == 401
    assert deliver_form(doubting, "http://localhost/webhooks/bare", "/webhooks/bare").status_code == 200


def test_a_wrong_signature_is_401(client: FlaskClient) -> None:
    response = deliver(client, headers={"webhook-signature": "v1,AAAA"})
    assert (response.status_code, list(response.json or ())) == (401, ["error"])


@pytest.mark.parametrize("name", ["nobody", "Demo", "..%2f", "%00", "%ff", "x" * 5_000, "demo/", "demo/x", "/demo", ""])
def test_every_unknown_channel_is_the_same_404(client: FlaskClient, name: str) -> None:
    response = client.post(f"/webhooks/{name}", data=b"x" * 10_000)
    assert (response.status_code, response.json) == (404, {"error": "not found"})


def test_what_is_signed_and_not_understood_is_kept_whole_and_its_field_is_named(fake: Any, client: FlaskClient) -> None:
    response = deliver(client, Delivery(senders=("a",), external_id="m1"))
    assert (response.status_code, (response.json or {})["field"]) == (202, "text")
    [(request, reasons)] = fake.quarantine.kept
    assert (request.header("webhook-id"), len(reasons)) == ("m1", 1)


def test_what_postgres_refuses_is_kept_whole_and_answered(fake: Any, client: FlaskClient) -> None:
    fake.intake.failure = StoreRefused("22021")
    assert deliver(client).status_code == 202
    [(_, reasons)] = fake.quarantine.kept
    assert reasons == ["Postgres refuses it: 22021"]


def test_what_cannot_be_kept_in_quarantine_comes_again(fake: Any, client: FlaskClient) -> None:
    fake.quarantine.failure = StoreUnavailable("full")
    assert deliver(client, Delivery(senders=("a",), external_id="m1")).status_code == 503


def test_a_bug_of_an_adapter_loses_no_webhook(
    fake: Any, client: FlaskClient, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake.providers["demo"], "parse", lambda request: int(request.body))
    assert deliver(client).status_code == 202
    assert [reasons for _, reasons in fake.quarantine.kept] == [["the adapter failed: ValueError"]]
    assert [entry["event"] for entry in logs] == ["adapter_failed"]
    assert "wish" not in str(logs)


@pytest.mark.parametrize("method", ["get", "head", "put", "delete", "patch", "options", "trace"])
def test_another_method_is_405(client: FlaskClient, method: str) -> None:
    response = getattr(client, method)("/webhooks/demo")
    assert (response.status_code, response.mimetype) == (405, "application/json")
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP", "x"])
def test_a_compressed_body_is_415(client: FlaskClient, encoding: str) -> None:
    assert deliver(client, headers={"Content-Encoding": encoding}).status_code == 415


@pytest.mark.parametrize(("waited_s", "left_s"), [(0.0, 2.5), (1.5, 1.0), (60.0, 0.5)])
def test_what_a_webhook_has_waited_for_a_thread_is_taken_off_what_it_waits_for_postgres(
    waited_s: float, left_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its provider waits for three seconds in all."""
    monkeypatch.setattr("onelane.inbox.receiving.time", SimpleNamespace(monotonic=lambda: 100.0, time_ns=time.time_ns))
    statuses, by_channel = KeptStatuses(), providers({"support": SUPPORT})
    made = services()
    made.receiving = receiving(by_channel, FakeIntake(), statuses)
    url = "https://bot.example/hooks/webhooks/support"
    signed = by_channel["support"].sign(url, Status(provider_id="SM" + "1" * 32, state="delivered", key=uuid4()))
    response = client_of(made).post(
        "/webhooks/support" + signed.query,
        data=signed.body,
        headers=dict(signed.headers),
        environ_overrides={WAITED_S: waited_s},
    )
    assert response.status_code == 204
    assert statuses.within_s == pytest.approx(left_s)


class Unread(BytesIO):
    """A body that nobody may read."""

    def readinto(self, _buffer: object) -> int:
        raise AssertionError("read")

    def read(self, _size: int | None = -1) -> bytes:
        raise AssertionError("read")


@pytest.mark.parametrize("channel", ["demo", "support"])
def test_without_the_header_of_a_signature_no_body_is_read(client: FlaskClient, channel: str) -> None:
    types = {"demo": "application/json", "support": "application/x-www-form-urlencoded"}
    size = {"CONTENT_LENGTH": "4000", "wsgi.input": Unread()}
    response = client.post(f"/webhooks/{channel}", content_type=types[channel], environ_overrides=size)
    assert response.status_code == 401


def test_a_body_larger_than_its_provider_sends_is_refused_unread(
    fake: Any, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(fake.providers["demo"]), "body_max_bytes", 100)
    size = {"CONTENT_LENGTH": "101", "wsgi.input": Unread()}
    assert deliver(client, environ_overrides=size).status_code == 413


def test_a_body_over_the_limit_is_413(client: FlaskClient) -> None:
    response = deliver(client, Delivery(senders=("a",), external_id="m1", text="x" * 5_000))
    assert (response.status_code, response.json) == (413, {"error": "the body is too large"})


@pytest.mark.parametrize(("text_length", "status"), [(1, 202), (3_000, 202), (5_000, 413)])
def test_a_chunked_body_over_the_limit_is_413(client: FlaskClient, text_length: int, status: int) -> None:
    signed = provider_of(DEMO).sign("", Delivery(senders=("a",), external_id="m1", text="x" * text_length))
    response = client.post(
        "/webhooks/demo",
        input_stream=BytesIO(signed.body),
        headers={**signed.headers, "Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert response.status_code == status


def test_a_body_that_breaks_off_is_400(client: FlaskClient) -> None:
    class Broken(BytesIO):
        def readinto(self, _buffer: object) -> int:
            raise RuntimeError("a chunk without its size")

    headers = {**provider_of(DEMO).sign("", HELLO).headers, "Transfer-Encoding": "chunked"}
    terminated = {"wsgi.input_terminated": True}
    response = client.post("/webhooks/demo", input_stream=Broken(b"x"), headers=headers, environ_overrides=terminated)
    assert (response.status_code, (response.json or {})["field"]) == (400, "body")


def test_another_content_type_is_415(client: FlaskClient) -> None:
    assert deliver(client, content_type="text/plain").status_code == 415
    assert client.post("/webhooks/support", json={}).status_code == 401  # unless its hash is signed
    headers = {"X-Twilio-Signature": "x"}
    assert client.post("/webhooks/support", data=b"", content_type="text/xml", headers=headers).status_code == 415


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [(StoreUnavailable("db.secret-host"), 503, "5"), (BacklogFull("full"), 429, "30")],
    ids=["store", "backlog"],
)
def test_what_cannot_be_accepted_now_says_when_to_try_again(
    fake: Any, client: FlaskClient, failure: Exception, status: int, retry_after: str
) -> None:
    fake.intake.failure = failure
    response = deliver(client)
    assert (response.status_code, response.headers["Retry-After"]) == (status, retry_after)
    assert "secret-host" not in response.text


def test_while_too_many_messages_wait_who_sends_no_statuses_is_told_to_come_later_and_its_body_is_not_read(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(webhook, "REFUSALS", SimpleNamespace(count=counted.append))
    full = SimpleNamespace(is_full=True)
    client = create_app(fake, cast("Fullness", full)).test_client()
    signed = {"X-Slack-Signature": "v0=x", "X-Slack-Request-Timestamp": "1"}

    def post(**how: Any) -> TestResponse:
        size = {"CONTENT_LENGTH": "4000", "wsgi.input": Unread()}
        return client.post("/webhooks/team", environ_overrides=size, **how)

    refused = post(headers=signed)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "30")
    assert refused.json == {"error": "too many messages wait"}
    assert counted == ["full"]
    assert post().status_code == 401, "who signs nothing learns nothing"
    full.is_full = False
    assert deliver(client).status_code == 202


def test_a_bug_is_told_by_its_place_and_never_by_its_text(fake: Any, client: FlaskClient, logs: list[Any]) -> None:
    fake.intake.failure = RuntimeError("Failing row contains (a secret wish)")
    assert deliver(client).json == {"error": "internal error"}
    [entry] = logs
    assert (entry["event"], entry["error"]) == ("request_failed", "RuntimeError")
    assert "wish" not in str(logs)


def test_each_delivery_is_one_log_line_without_text_or_sender(client: FlaskClient, logs: list[Any]) -> None:
    deliver(client)
    deliver(client)
    deliver(client, headers={"webhook-signature": "v1,AAAA"})
    deliver(client, content_type="text/plain")
    assert [entry["event"] for entry in logs] == [
        "delivery_accepted",
        "delivery_duplicate",
        "signature_refused",
        "delivery_refused",
    ]
    assert (logs[0]["channel"], logs[0]["seq"]) == ("demo", 1)
    assert logs[2]["address"] == "http://localhost/webhooks/demo"
    assert "wish" not in str(logs)
    assert "33612345678" not in str(logs)


def test_strangers_do_not_fill_the_log(client: FlaskClient, logs: list[Any]) -> None:
    for _ in range(LINES_MAX + 5):
        client.post("/webhooks/nobody")
        deliver(client, headers={"webhook-signature": "v1,AAAA"})
        deliver(client, content_type="text/plain")
    deliver(client)
    assert Counter(entry["event"] for entry in logs) == {
        "channel_unknown": LINES_MAX,
        "signature_refused": LINES_MAX,
        "delivery_refused": LINES_MAX,
        "delivery_accepted": 1,
    }


def test_what_was_left_out_of_the_log_is_said_with_the_next_line(logs: list[Any]) -> None:
    now = [0.0]
    few = FewLines(lambda: now[0])
    assert [few.allow("signature_refused") for _ in range(LINES_MAX + 2)] == [True] * LINES_MAX + [False] * 2
    assert few.allow("channel_unknown")
    now[0] = WINDOW_S
    assert few.allow("signature_refused")
    assert [(entry["event"], entry["kind"], entry["lines"]) for entry in logs] == [
        ("lines_left_out", "signature_refused", 2)
    ]


def test_what_is_no_request_does_not_fill_the_log_either(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gunicorn_settings, "configure_by_environment", lambda: None)
    log = gunicorn_settings.OneLog(Config())
    for _ in range(LINES_MAX + 5):
        log.warning("Invalid request from ip=127.0.0.1: not this one")
    log.warning("Another warning")
    assert len(caplog.records) == LINES_MAX + 1


def test_no_request_is_logged_where_the_environment_asks_for_an_access_log(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heroku's buildpack sets GUNICORN_CMD_ARGS so, and Meta's check of an address has a token in its query."""
    monkeypatch.setattr(gunicorn_settings, "configure_by_environment", lambda: None)
    config = Config()
    config.set("accesslog", "-")
    log = gunicorn_settings.OneLog(config)
    request = SimpleNamespace(headers=[])
    asked = {"REQUEST_METHOD": "GET", "RAW_URI": "/webhooks/meta?hub.verify_token=secret"}
    log.access(
        SimpleNamespace(status="200 OK", headers=[], sent=2),
        request,
        {**asked, "SERVER_PROTOCOL": "HTTP/1.1"},
        timedelta(),
    )
    log.access_log.handlers.clear()
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(("name", "logged"), [("nobody", "nobody"), ("+33612345678", None), ("x" * 64, None)])
def test_an_unknown_channel_is_logged_by_a_name_that_could_be_one(
    client: FlaskClient, logs: list[Any], name: str, logged: str | None
) -> None:
    assert client.post(f"/webhooks/{name}").status_code == 404
    assert [(entry["event"], entry["channel"]) for entry in logs] == [("channel_unknown", logged)]


def test_the_process_says_that_it_lives(client: FlaskClient) -> None:
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/", "/webhooks", "/webhooks/", "/nothing?a=b", "/webhooks/demo/replies/x"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PROPFIND"])
def test_an_unknown_path_is_answered_in_json(client: FlaskClient, path: str, method: str) -> None:
    response = client.open(path, method=method)
    assert (response.status_code, response.mimetype) == (404, "application/json")
