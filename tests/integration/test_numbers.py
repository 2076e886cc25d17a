"""The numbers: right over processes and restarts, cheap to read, closed to strangers, and silent about users."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from onelane import keys
from onelane.bootstrap import Services, open_services
from onelane.channels import provider_of
from onelane.config import Settings
from onelane.deliveries import Accepted, Delivery
from onelane.inbox.fullness import Fullness
from onelane.keys import NUMBERS
from onelane.operations.snapshot import Survey
from onelane.postgres.db import Database
from onelane.telemetry.counters import counters
from onelane.telemetry.numbers import COUNTED
from onelane_web import create_app
from onelane_web.metrics import GAUGES, Lanes, suggestion
from tests.by_hand import ByHand
from tests.calls import Calls, lease, sent
from tests.conftest import DEADLINE_S, eventually
from tests.processes import worker_process
from tests.rows import Rows
from tests.working_off import work_off

Web = Callable[..., FlaskClient]
Accept = Callable[..., Accepted]
RunWorker = Callable[[Settings], AbstractContextManager[Any]]
Numbers = Callable[[FlaskClient], dict[str, float]]

TOKEN = "a token, and ünusual"
HELLO = Delivery(senders=("+33612345678",), external_id="m1", text="hello")


@pytest.fixture
def web(services: Services) -> Web:
    """Make a client of the web with changed settings."""

    def web(**changes: Any) -> FlaskClient:
        changed = services.settings.model_copy(update=changes)
        return create_app(replace(services, settings=changed)).test_client()

    counters.take()  # what the tests before have counted
    return web


@pytest.fixture
def numbers(services: Services) -> Numbers:
    """Read /metrics as Prometheus does: each sample by name and labels."""

    def numbers(client: FlaskClient) -> dict[str, float]:
        services.upload.flush()
        text = client.get("/metrics").get_data(as_text=True)
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {" ".join([one.name, *one.labels.values()]): one.value for one in samples}

    return numbers


def deliver(client: FlaskClient, settings: Settings, delivery: Delivery, **headers: str) -> int:
    signed = provider_of(settings.channels["demo"]).sign("", delivery)
    return client.post("/webhooks/demo", data=signed.body, headers={**signed.headers, **headers}).status_code


def test_a_message_is_counted_on_its_whole_way(
    web: Web, settings: Settings, run_worker: RunWorker, numbers: Numbers
) -> None:
    client = web()
    with run_worker(settings):
        assert deliver(client, settings, HELLO) == 202
        assert deliver(client, settings, HELLO) == 202
        eventually(lambda: numbers(client)["onelane_turns_total committed"])
        deliver(client, settings, HELLO.model_copy(update={"external_id": "m2"}))
        eventually(lambda: numbers(client)["onelane_turns_total committed"] == 2)
        lanes = [f"onelane_lanes {kind} {state}" for kind in keys.KINDS for state in ("due", "leased")]
        eventually(lambda: not any(numbers(client)[lane] for lane in lanes))
    found = numbers(client)
    assert found["onelane_deliveries_total accepted"] == 2
    assert found["onelane_deliveries_total duplicate"] == 1
    assert found["onelane_session_cache_total miss"] == 1
    assert found["onelane_session_cache_total hit"] == 1
    assert found["onelane_turn_seconds_count"] == 2
    assert found["onelane_end_to_end_seconds_bucket 10"] == 2
    assert 0 < found["onelane_turn_seconds_sum"] <= found["onelane_end_to_end_seconds_sum"] + 0.005


@pytest.mark.slow
def test_numbers_stay_right_over_processes_and_their_restarts(
    web: Web, settings: Settings, accept: Accept, numbers: Numbers
) -> None:
    client = web()
    for nr in range(20):
        accept(f"user {nr}")
    with worker_process(settings, "--burst") as one, worker_process(settings, "--burst") as two:
        assert one.wait(DEADLINE_S) == two.wait(DEADLINE_S) == 0
    for nr in range(20):
        accept(f"user {nr}")
    with worker_process(settings, "--burst") as again:
        assert again.wait(DEADLINE_S) == 0
    assert numbers(client)["onelane_turns_total committed"] == 40
    assert numbers(client)["onelane_deliveries_total accepted"] == 40


@pytest.mark.slow
def test_a_killed_worker_is_seen_in_the_takeovers(
    web: Web, services: Services, settings: Settings, accept: Accept, tmp_path: Path, numbers: Numbers
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": 1})
    client, gate = web(), tmp_path / "gate"
    message = accept("alice", f"wait {gate}")
    with worker_process(settings) as process:
        eventually(lambda: services.lanes.client.exists(f"lock:in:{message.user_id}"))
        process.kill()
    gate.touch()
    with worker_process(settings):
        eventually(lambda: numbers(client)["onelane_takeovers_total"] == 1)
        eventually(lambda: numbers(client)["onelane_turns_total committed"] == 1)


def test_failures_and_lost_leases_are_counted(
    web: Web,
    services: Services,
    settings: Settings,
    accept: Accept,
    run_worker: RunWorker,
    numbers: Numbers,
    tmp_path: Path,
) -> None:
    settings = settings.model_copy(update={"handler": "tests.bots:handle", "attempts_max": 2})
    client, gate = web(), tmp_path / "gate"
    accept("eve", "raise")
    slow = accept("bob", f"wait {gate}")
    with run_worker(settings):
        eventually(lambda: services.lanes.client.exists(f"lock:in:{slow.user_id}"))
        services.lanes.client.hset(f"lock:in:{slow.user_id}", "token", "another's")
        eventually(lambda: numbers(client)["onelane_leases_lost_total"] == 1)
        gate.touch()
        eventually(lambda: numbers(client)["onelane_turns_total dead"] == 1)
    assert numbers(client)["onelane_turns_total retry"] == 1


@pytest.mark.parametrize("cached", ["no uuid", "00000000-0000-0000-0000-000000000000"])
def test_a_wrong_cached_session_is_counted(
    web: Web,
    services: Services,
    settings: Settings,
    accept: Accept,
    cached: str,
    numbers: Numbers,
) -> None:
    client = web()
    message = accept("alice")
    services.lanes.client.set(f"session:user:{message.user_id}", cached)
    work_off(services, settings)
    assert numbers(client)["onelane_turns_total committed"] == 1
    result = "malformed" if cached == "no uuid" else "wrong"
    assert numbers(client)[f"onelane_session_cache_total {result}"] == 1


class Broken(BytesIO):
    """A body whose client has gone."""

    def read(self, _size: int | None = -1, /) -> bytes:
        raise OSError


def test_refusals_are_counted_by_reason(web: Web, settings: Settings, numbers: Numbers) -> None:
    client = web(body_max_bytes=1_024)
    deliver(client, settings, HELLO, **{"webhook-signature": "v1,wrong"})
    deliver(client, settings, HELLO, **{"Content-Type": "text/plain"})
    deliver(client, settings, HELLO.model_copy(update={"text": "x" * 2_000}))
    signed = provider_of(settings.channels["demo"]).sign("", HELLO)
    gone = {"wsgi.input": Broken(), "CONTENT_LENGTH": "2"}
    client.post("/webhooks/demo", headers=dict(signed.headers), environ_overrides=gone)
    client.post("/webhooks/nobody")
    found = numbers(client)
    for reason in ("bad_signature", "unsupported", "too_large", "bad_request", "unknown_channel"):
        assert found[f"onelane_refusals_total {reason}"] == 1, reason


def test_every_number_is_there_from_the_start(services: Services, numbers: Numbers) -> None:
    counters.take()
    fullness = Fullness(services.database, 1_000)
    fullness.look()
    found = numbers(create_app(services, fullness).test_client())
    names = {f"{one.name}{'_total' if hasattr(one, 'label') else '_count'}" for one in COUNTED} | set(GAUGES)
    assert names <= {name.split()[0] for name in found}
    assert found.pop("onelane_inbox_max_messages") == 1_000
    assert set(found.values()) == {0}


def test_replies_that_wait_and_channels_that_are_broken_are_gauges(
    web: Web, services: Services, numbers: Numbers
) -> None:
    alice, calls = ByHand(services.database), Calls(services.database)
    alice.say()
    alice.turn(replies=[{"text": text} for text in ("given up", "refused", "waits")])
    for outcomes in (("unknown", "give_up"), ("broken",)):
        [begun] = calls.begin_sends(lease(alice.user_id))
        for outcome in outcomes:
            calls.settle_sends(sent(begun, outcome, failure="denied"))
    found = numbers(web())
    assert found["onelane_replies_waiting pending"] == 2
    assert found["onelane_replies_given_up"] == found["onelane_channels_broken"] == 1
    assert found["onelane_replies_oldest_wait_seconds"] > 0


def test_with_postgres_away_the_numbers_in_redis_are_shown(web: Web, services: Services, numbers: Numbers) -> None:
    nowhere = Database("postgresql://127.0.0.1:1/nowhere", wait_s=0.1)
    client = create_app(replace(services, database=nowhere)).test_client()
    found = numbers(client)
    nowhere.close()
    assert found["onelane_workers in"] == found["onelane_workers out"] == 0
    assert "onelane_channels_broken" not in found


def test_no_label_says_who(web: Web, settings: Settings, run_worker: RunWorker, numbers: Numbers) -> None:
    client = web()
    with run_worker(settings):
        deliver(client, settings, HELLO)
        eventually(lambda: numbers(client)["onelane_turns_total committed"])
        before = set(numbers(client))
        for nr in range(5):
            deliver(client, settings, Delivery(senders=(f"user {nr}",), external_id=f"n{nr}", text="hello"))
        eventually(lambda: numbers(client)["onelane_turns_total committed"] == 6)
    assert set(numbers(client)) == before


def test_the_format_is_prometheus_0_0_4(web: Web) -> None:
    response = web().get("/metrics")
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    text = response.get_data(as_text=True)
    assert "# TYPE onelane_turns_total counter\n" in text
    assert 'onelane_end_to_end_seconds_bucket{le="+Inf"} 0.0\n' in text


def test_metrics_answer_with_100_000_lanes_about_as_fast_as_with_none(web: Web, services: Services) -> None:
    client = web()

    def least_s() -> float:
        times = []
        for _ in range(20):
            began = time.perf_counter()
            assert client.get("/metrics").status_code == 200
            times.append(time.perf_counter() - began)
        return min(times)

    with_none = least_s()
    for start in range(0, 100_000, 10_000):
        services.lanes.client.zadd("lanes:in", {f"user {nr}": nr for nr in range(start, start + 10_000)})
    assert least_s() < 3 * with_none + 0.02


@pytest.mark.parametrize("page", ["/metrics", "/autoscale.json"])
def test_a_set_token_is_needed_everywhere(web: Web, page: str) -> None:
    for development in (True, False):
        client = web(metrics_token=SecretStr(TOKEN), development=development)
        assert client.get(page).status_code == 401
        for given in ("", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer é"):
            answer = client.get(page, headers={"Authorization": given.encode().decode("latin-1")})
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        right = f"Bearer {TOKEN}".encode().decode("latin-1")
        assert client.get(page, headers={"Authorization": right}).status_code == 200


@pytest.mark.parametrize("page", ["/metrics", "/autoscale.json"])
def test_without_a_token_they_are_open_in_development_only(web: Web, page: str) -> None:
    assert web(development=True).get(page).status_code == 200
    assert web(development=False).get(page).status_code == 404


@pytest.mark.parametrize("page", ["/metrics", "/autoscale.json"])
def test_without_redis_they_say_so(settings: Settings, page: str) -> None:
    services = open_services(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"}))
    answer = create_app(services).test_client().get(page)
    services.close()
    assert (answer.status_code, answer.json) == (503, {"error": "Redis is unavailable, and the numbers are kept there"})


def test_numbers_begin_again_when_redis_forgets(web: Web, services: Services, accept: Accept, numbers: Numbers) -> None:
    client = web()
    accept("alice")
    assert numbers(client)["onelane_deliveries_total accepted"] == 1
    services.lanes.client.flushall()
    accept("alice")
    assert numbers(client)["onelane_deliveries_total accepted"] == 1


def test_a_foreign_key_in_the_place_of_the_numbers_stops_no_message_and_is_removed(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    services.lanes.client.set(NUMBERS, "mine")
    with run_worker(settings):
        message = accept("alice")
        eventually(lambda: rows.states(message.user_id) == ["processed"])
    assert services.upload.flush()
    assert services.lanes.client.type(NUMBERS) == b"hash"


def test_autoscale_tells_what_an_autoscaler_needs(web: Web, accept: Accept) -> None:
    for nr in range(3):
        accept(f"user {nr}")
    told = web(worker_slots=2).get("/autoscale.json").json or {}
    assert told.pop("oldest_wait_s") == told["kinds"]["in"].pop("oldest_wait_s") >= 0
    assert told == {
        "lanes_due": 3,
        "lanes_leased": 0,
        "replies_due": 0,
        "replies_leased": 0,
        "workers": 0,
        "slots": 0,
        "suggested_workers": 2,
        "kinds": {
            "in": {"workers": 0, "suggested_workers": 2},
            "out": {"workers": 0, "suggested_workers": 1, "oldest_wait_s": 0},
        },
    }


@pytest.mark.parametrize("kind", keys.KINDS)
def test_a_worker_of_one_kind_is_none_of_the_other(
    kind: str, web: Web, settings: Settings, run_worker: RunWorker, numbers: Numbers
) -> None:
    with run_worker(settings.model_copy(update={"worker_kinds": (kind,)})):
        found = eventually(lambda: (read := numbers(web()))[f"onelane_workers {kind}"] and read)
        told = web().get("/autoscale.json").json or {}
        for one in keys.KINDS:
            assert found[f"onelane_workers {one}"] == told["kinds"][one]["workers"] == (one == kind)


@pytest.mark.parametrize(
    ("due", "leased", "suggested"),
    [(0, 0, 1), (1, 0, 1), (0, 16, 1), (1, 16, 2), (16, 16, 2), (17, 16, 3), (10_000, 0, 8)],
)
def test_a_slot_for_every_lane_with_work_is_suggested_within_bounds(
    services: Services, settings: Settings, due: int, leased: int, suggested: int
) -> None:
    lanes = snapshot(services)
    busy = lanes.turns.model_copy(update={"due": due, "leased": leased, "parked": 500, "paused": 500})
    settings = settings.model_copy(update={"worker_slots": 16, "send_slots": 16})
    for kind, one in (("in", lanes._replace(turns=busy)), ("out", lanes._replace(replies=busy))):
        found = suggestion(settings, one)
        assert found["suggested_workers"] == found["kinds"][kind]["suggested_workers"] == suggested


def test_no_worker_is_suggested_for_no_work_when_none_must_be(services: Services, settings: Settings) -> None:
    settings = settings.model_copy(update={"autoscale_workers_min": 0})
    assert suggestion(settings, snapshot(services))["suggested_workers"] == 0


def snapshot(services: Services) -> Lanes:
    return Lanes(*(Survey(lanes).snapshot() for lanes in services.all_lanes))
