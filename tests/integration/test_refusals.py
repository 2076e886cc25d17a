"""Redis says no: what is committed is answered as such, nobody is charged, and the operator reads what to do."""

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr
from werkzeug.test import TestResponse

from onelane import keys
from onelane.bootstrap import Services, open_services, open_worker
from onelane.channels import provider_of
from onelane.cli import main
from onelane.config import Settings
from onelane.deliveries import Accepted, Delivery
from onelane.dev.embedded import EmbeddedRedis
from onelane.doctor.examination import CHECKS, examine
from onelane.doctor.finding import Deployment, Health
from onelane.errors import EXIT_CONFIG, LanesDenied
from tests.conftest import ROOT, Accept, LogLines, RunWorker, eventually
from tests.door import operator_of, pages_of, try_to_log_in, web_of
from tests.processes import environment
from tests.refusing import RUBBISH, RULES, SETTINGS_MEND, Limited, Refusing, answering
from tests.rows import Rows

PASSING = {"connect", "lease", "probe"}
"""Threads of a worker that end when nothing is left for them to do."""
FIXED_WORDS = {"ok", "unavailable", "refuses"}
REFUSING: dict[str, Refusing] = {**SETTINGS_MEND} | {
    name: lambda stack, _server, _folder, answer=answer: stack.enter_context(answering(answer))
    for name, answer in RUBBISH.items()
}


@pytest.fixture
def limited(redis_server: EmbeddedRedis) -> Iterator[Limited]:
    with Limited(redis_server) as limited:
        yield limited


def deliver(settings: Settings, client: object, external_id: str) -> TestResponse:
    signed = provider_of(settings.channels["demo"]).sign(
        "", Delivery(senders=("alice",), external_id=external_id, text="x")
    )
    return client.post("/webhooks/demo", data=signed.body, headers=dict(signed.headers))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "refusing",
    [
        pytest.param(refusing, id=name, marks=[pytest.mark.slow] if nr % 2 or name == "nothing" else [])
        for nr, (name, refusing) in enumerate(REFUSING.items())
    ],
)
def test_whatever_redis_answers_the_web_accepts_messages_and_its_pages_say_that_redis_is_away(
    services: Services, settings: Settings, redis_server: EmbeddedRedis, rows: Rows, tmp_path: Path, refusing: Refusing
) -> None:
    """A webhook was answered 500 after its message was committed, and 500 again whenever it was repeated."""
    operator_cookie = operator_of(web_of(services))
    with ExitStack() as stack:
        url = refusing(stack, redis_server, tmp_path / "redis")
        refused = open_services(settings.model_copy(update={"redis_url": url}))
        stack.callback(refused.close)
        app = web_of(refused, metrics_token=SecretStr("token"))
        client = app.test_client()
        assert [deliver(settings, client, name).status_code for name in ("m1", "m1", "m2")] == [202] * 3
        ready = client.get("/readyz")
        assert (ready.status_code, (ready.json or {})["postgres"]) == (503, "ok")
        assert (ready.json or {})["redis"] in FIXED_WORDS - {"ok"}
        assert client.get("/healthz").status_code == 200
        for page in ("/metrics", "/autoscale.json"):
            answer = client.get(page, headers={"Authorization": "Bearer token"})
            assert answer.status_code == 200 or (answer.status_code, "Redis" in answer.text) == (503, True), page
        assert try_to_log_in(client).status_code in {303, 503}
        inside = app.test_client()
        for name in ("onelane_ops", "_csrf_token"):
            cookie = operator_cookie.get_cookie(name, path="/ops")
            assert cookie is not None
            inside.set_cookie(name, cookie.value, path="/ops")
        assert {inside.get(page).status_code for page in pages_of("user:x", "x")} <= {200, 404, 503}
    assert len(rows.accepted()) == 2


@pytest.mark.parametrize("refusing", SETTINGS_MEND.values(), ids=SETTINGS_MEND)
def test_what_only_a_setting_mends_ends_a_worker_at_its_start_and_is_named_by_readyz_and_the_doctor(
    services: Services, settings: Settings, redis_server: EmbeddedRedis, tmp_path: Path, refusing: Refusing
) -> None:
    with ExitStack() as stack:
        url = refusing(stack, redis_server, tmp_path / "redis")
        denied = settings.model_copy(update={"redis_url": url, "handler": "tests.bots:handle"})
        earlier = set(threading.enumerate())
        with pytest.raises(LanesDenied, match="Redis"):
            open_worker(denied)
        left = set(threading.enumerate()) - earlier  # its tasks asked Redis for a connection once a second
        eventually(lambda: not any(thread.is_alive() for thread in left))
        refused = open_services(denied)
        stack.callback(refused.close)
        answer = web_of(refused).test_client().get("/readyz")
        assert (answer.json or {})["redis"] == "refuses"
        examined = {one.check: one.finding for one in examine(Deployment(denied, refused.database, refused.lanes))}
    assert examined["postgres"].health is Health.OK
    assert examined["redis"].health is Health.FAILED
    assert examined["redis"].todo
    assert str(redis_server.port) not in examined["redis"].found


def test_a_worker_that_redis_refuses_at_its_start_exits_as_for_any_mistake_of_configuration(
    settings: Settings, limited: Limited, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limited.allow(*RULES["no keys of ours"])
    for name, value in environment(settings, redis_url=limited.url, handler="tests.bots:handle").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["onelane", "worker", "--unsupervised"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == EXIT_CONFIG
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("onelane:")]
    assert "REDIS_URL" in line


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(rules, id=name, marks=[] if name == "no EVAL, EVALSHA or SCRIPT" else [pytest.mark.slow])
        for name, rules in {**RULES, "no channels": ("resetchannels",), "no RQ": ("-publish", "-subscribe")}.items()
    ],
)
def test_a_running_worker_sits_a_refusal_out_and_nobody_is_charged(
    services: Services,
    settings: Settings,
    limited: Limited,
    accept: Accept,
    run_worker: RunWorker,
    rows: Rows,
    log_lines: LogLines,
    tmp_path: Path,
    rules: tuple[str, ...],
) -> None:
    gate, earlier = tmp_path / "gate", set(threading.enumerate())
    settings = settings.model_copy(update={"redis_url": limited.url, "lock_ttl_s": 1})
    with run_worker(settings.model_copy(update={"handler": "tests.bots:handle"})):
        during = accept("alice", f"wait {gate}")
        eventually(lambda: any(line["event"] == "worker_started" for line in log_lines))
        eventually(lambda: services.lanes.client.exists(keys.lock(during.user_id)))
        threads = {thread.name for thread in set(threading.enumerate()) - earlier} - PASSING
        limited.allow(*rules)
        waiting = [accept(f"user {nr}") for nr in range(3)]
        if not rules[0].endswith("channels") and "-publish" not in rules:
            eventually(lambda: any(line["event"] == "lease_failed" for line in log_lines))
        gate.touch()
        limited.allow()
        eventually(lambda: all(rows.is_settled(message.user_id) for message in (during, *waiting)))
        assert threads <= {thread.name for thread in set(threading.enumerate()) - earlier}
    assert rows.attempts_max() == 0
    assert [line["event"] for line in log_lines if line["event"] in {"task_failed", "slot_failed"}] == []
    said = [line["kind"] for line in log_lines if line["event"] == "lease_failed"]
    assert len(said) == len(set(said)), "once for each kind of lanes"


@pytest.mark.slow
def test_a_password_changed_under_a_running_worker_is_an_outage_until_it_is_right_again(
    settings: Settings, limited: Limited, accept: Accept, run_worker: RunWorker, rows: Rows, log_lines: LogLines
) -> None:
    settings = settings.model_copy(update={"redis_url": limited.url, "handler": "tests.bots:handle"})
    with run_worker(settings):
        before = accept("bob")
        eventually(lambda: rows.is_settled(before.user_id))
        limited.change_password("another")
        message = accept("alice")
        eventually(
            lambda: any("REDIS_URL" in line.get("error", "") for line in log_lines if line["event"] == "lease_failed")
        )
        limited.change_password("open sesame")
        eventually(lambda: rows.is_settled(message.user_id))
    assert rows.attempts_max() == 0


def test_the_rights_that_the_documents_name_are_enough(
    settings: Settings, limited: Limited, accept: Accept, run_worker: RunWorker, rows: Rows, log_lines: LogLines
) -> None:
    [rules] = re.findall(r"ACL SETUSER onelane on >PASSWORD (.+)", (ROOT / "docs/OPERATIONS.md").read_text("utf-8"))
    limited.allow(*rules.split())
    ours = {"redis_url": limited.url, "handler": "tests.bots:handle", "lock_ttl_s": 12}
    with run_worker(settings.model_copy(update=ours)) as worker:
        messages = [accept("alice"), accept("bob", "raise")]
        eventually(lambda: all(rows.is_settled(message.user_id) for message in messages))
        _look_at_everything(worker.services, messages[1])
        assert worker.services.upload.flush()
    # What is asked for and not needed: redis-py gives its version, the doctor reads what INFO leaves out.
    assert limited.denied <= {"client", "client|setinfo", "config", "config|get"}
    # A machine that stands still for half a lease looks like a clock that steps. Numbers of another test may be late.
    warnings = {line["event"] for line in log_lines if line["log_level"] not in {"info", "debug"}}
    assert warnings <= {"clock_stepped", "numbers_postponed", "turn_failed"}


def _look_at_everything(services: Services, dead: Accepted) -> None:
    """Log in, look at all pages, ask the doctor, and act on a dead message."""
    operator = operator_of(web_of(services, metrics_token=SecretStr("token")))
    lane = keys.queue_name(dead.user_id)
    for page in ("/ops/overview", f"/ops/users/{dead.user_id}", "/readyz", *pages_of(lane, dead.message_id)):
        assert operator.get(page).status_code in {200, 404}, page
    for page in ("/metrics", "/autoscale.json"):
        assert operator.get(page, headers={"Authorization": "Bearer token"}).status_code == 200
    deployment = Deployment(services.settings, services.database, services.lanes)
    of_redis = [check for check in CHECKS if {"redis", "owner"} & {check.name, *check.needs}]
    assert {one.check for one in examine(deployment, of_redis) if one.finding.health is Health.FAILED} == set()
    services.acts.pause(dead.user_id, by="ann")
    services.acts.resume(dead.user_id, by="ann")
