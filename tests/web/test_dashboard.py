"""rq-dashboard's pages over our data: what they show, what can be done there, and what they cost."""

import os
import time
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.deliveries import Accepted
from onelane_web.ops import rq_state
from tests.conftest import Accept, RunWorker, eventually
from tests.door import CANARY, DATA, jobs_of, operator_of, pages_of, read, web_of
from tests.rows import Rows


def test_dead_messages_are_shown_with_their_traceback_and_without_a_word_of_the_user(
    operator: FlaskClient, dead: list[Accepted]
) -> None:
    queue = keys.queue_name(dead[0].user_id)
    [row] = read(operator, "queues")["queues"]  # bob's lane has nothing to show
    assert (row["name"], row["count"], row["failed_job_registry_count"]) == (queue, 0, 2)
    pages = [operator.get(f"{DATA}/queues.json").text, operator.get(row["failed_url"]).text]
    pages += [operator.get(f"{DATA}/jobs/{queue}/failed/8/asc/1.json").text]
    for job in jobs_of(operator, queue):
        assert "tests/bots.py" in job["exc_info"]
        assert job["exc_info"].endswith("ValueError")
        whole = operator.get(f"{DATA}/job/{job['id']}.json")
        assert read(operator, f"job/{job['id']}")["status"] == "failed"
        assert "tests/bots.py" in read(operator, f"job/{job['id']}")["exc_info"]
        pages += [whole.text, operator.get(f"/ops/rq/0/view/job/{job['id']}").text]
    assert not any(CANARY in page or "alice" in page for page in pages)


def test_requeued_messages_run_in_their_users_order_within_seconds(
    rows: Rows,
    services: Services,
    settings: Settings,
    operator: FlaskClient,
    dead: list[Accepted],
    run_worker: RunWorker,
) -> None:
    runs = Path(os.environ["BOT_LOG"])
    runs.write_text("")
    queue = keys.queue_name(dead[0].user_id)
    assert {job["id"] for job in jobs_of(operator, queue)} == {str(message.message_id) for message in dead[:2]}
    for message in dead[:2]:
        rows.rewrite(message.message_id, "well")
    for message in (dead[1], dead[0]):  # the later one first
        assert operator.post(f"/ops/rq/job/{message.message_id}/requeue").json == {"status": "OK"}
        assert operator.post(f"/ops/rq/job/{message.message_id}/requeue").status_code == 409
    # Both are found in one round of the reconciler, whenever each was pressed.
    settings = settings.model_copy(update={"handler": "tests.bots:handle"})
    with run_worker(settings):
        eventually(lambda: rows.count("processed") == 4)
    assert [line.split()[:2] for line in runs.read_text().splitlines()] == [["alice", "1"], ["alice", "2"]]
    assert read(operator, "queues")["queues"] == []
    assert operator.get(f"{DATA}/job/{dead[0].message_id}.json").status_code == 404


def test_requeue_all_is_no_get_and_puts_all_back(
    services: Services, operator: FlaskClient, dead: list[Accepted]
) -> None:
    queue = keys.queue_name(dead[0].user_id)
    before = _snapshot(services.lanes.client)
    assert operator.get(f"/ops/rq/requeue/{queue}").status_code == 405
    assert operator.head(f"/ops/rq/requeue/{queue}").status_code == 405
    assert operator.get(f"/ops/rq/job/{dead[0].message_id}/requeue").status_code == 405
    assert _snapshot(services.lanes.client) == before
    assert operator.post(f"/ops/rq/requeue/{queue}").json == {"status": "OK", "count": 2}
    assert operator.post(f"/ops/rq/requeue/{queue}").json == {"status": "OK", "count": 0}


def test_every_post_that_changes_something_is_in_the_audit_with_who_and_what(
    web: Flask, services: Services, operator: FlaskClient, dead: list[Accepted]
) -> None:
    user_id, queue = str(dead[0].user_id), keys.queue_name(dead[0].user_id)
    values = {"job_id": str(dead[0].message_id), "queue_name": queue, "registry_name": "failed"}
    for rule in web.url_map.iter_rules():
        if rule.endpoint.startswith("rq_dashboard.") and "POST" in (rule.methods or ()):
            path = web.url_map.bind("localhost").build(rule.endpoint, values, "POST")
            noted = services.database.rows("SELECT FROM audit")
            did = operator.post(path).status_code == 200
            assert len(services.database.rows("SELECT FROM audit")) == len(noted) + did, path
    audit = services.database.rows("SELECT who, act, subject, detail FROM audit WHERE act <> 'logged_in' ORDER BY act")
    assert audit == [
        ("operator", "job_requeued", user_id, {"message_id": values["job_id"]}),
        ("operator", "jobs_requeued", user_id, {"queue": queue, "count": 1}),
    ]


def test_what_a_page_asks_of_redis_again_and_again_ends_when_its_time_is_over(
    operator: FlaskClient, redis: Redis, dead: list[Accepted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rq_state, "PAGE_S", 0.0)
    redis.sadd(keys.RQ_QUEUES, *(f"rq:queue:{nr}" for nr in range(5_000)))
    redis.sadd(keys.RQ_WORKERS, *(f"rq:worker:{nr}" for nr in range(5_000)))
    asked = redis.info("commandstats").get("cmdstat_sscan", {"calls": 0})["calls"]
    read(operator, "queues")
    read(operator, "workers")
    assert redis.info("commandstats")["cmdstat_sscan"]["calls"] == asked + 2
    queue = keys.queue_name(dead[0].user_id)
    assert [(operator.post(f"/ops/rq/requeue/{queue}").json or {})["count"] for _ in range(3)] == [1, 1, 0]


def test_nothing_can_be_deleted_emptied_or_compacted(
    services: Services, operator: FlaskClient, dead: list[Accepted]
) -> None:
    queue = keys.queue_name(dead[0].user_id)
    before = _snapshot(services.lanes.client)
    for path in (f"job/{dead[0].message_id}/delete", f"queue/{queue}/failed/empty", f"queue/{queue}/compact"):
        answer = operator.post(f"/ops/rq/{path}")
        assert answer.status_code == 403
        assert (answer.json or {})["error"]
    assert _snapshot(services.lanes.client) == before


def _snapshot(redis: Redis) -> dict[Any, bytes | None]:
    return {key: redis.dump(key) for key in redis.scan_iter() if key.startswith((b"rq:", b"lanes", b"buried"))}


def test_looking_at_every_page_changes_nothing(services: Services, operator: FlaskClient, dead: list[Accepted]) -> None:
    before = _snapshot(services.lanes.client)
    queue = keys.queue_name(dead[0].user_id)
    for path in pages_of(queue, dead[0].message_id):
        assert operator.get(path).status_code == 200
    assert _snapshot(services.lanes.client) == before


def test_a_page_of_jobs_and_the_way_to_the_next(operator: FlaskClient, redis: Redis) -> None:
    queue = Queue("many", connection=redis, serializer=JSONSerializer)
    ids = [queue.enqueue("os.getcwd").id for _ in range(20)]
    assert [job["id"] for job in jobs_of(operator, "many", "queued", "8/asc/1")] == ids[:8]
    assert [job["id"] for job in jobs_of(operator, "many", "queued", "8/asc/3")] == ids[16:]
    assert [job["id"] for job in jobs_of(operator, "many", "queued", "8/dsc/1")] == ids[:-9:-1]
    assert [job["id"] for job in jobs_of(operator, "many", "queued", "8/dsc/3")] == ids[3::-1]
    assert jobs_of(operator, "many", "queued", "8/dsc/4") == []
    last = read(operator, "jobs/many/queued/8/asc/3")["pagination"]
    assert (last["num_pages"], [page["number"] for page in last["pages_in_window"]]) == (3, [1, 2, 3])
    assert "next_page" not in last
    assert operator.get(last["prev_page"]["url"]).status_code == 200


@pytest.mark.slow
def test_a_worker_is_shown_with_its_state_and_its_lanes(
    settings: Settings, operator: FlaskClient, accept: Accept, run_worker: RunWorker, gate: Path
) -> None:
    with run_worker(settings.model_copy(update={"handler": "tests.bots:handle"})):
        message = accept("alice", f"wait {gate}")
        lane = keys.queue_name(message.user_id)
        [busy] = eventually(lambda: [w for w in _workers(operator) if w["lanes"]])
        assert busy["status"] == "busy"
        assert [(each["name"], operator.get(each["url"]).status_code) for each in busy["lanes"]] == [(lane, 200)]
        gate.touch()
        eventually(lambda: [(w["status"], w["lanes"]) for w in _workers(operator)] == [("idle", [])])
    assert _workers(operator) == []


def _workers(operator: FlaskClient) -> Any:
    return read(operator, "workers")["workers"]


def test_a_hundred_requests_open_no_connection(redis: Redis, operator: FlaskClient) -> None:
    def connections() -> set[str]:
        return {client["id"] for client in redis.client_list()}

    operator.get(f"{DATA}/queues.json")
    before, made = connections(), redis.info("stats")["total_connections_received"]
    for _ in range(25):
        for tail in ("view/queues", "data/queues.json", "data/workers.json", "data/jobs/q/failed/8/asc/1.json"):
            assert operator.get(f"/ops/rq/0/{tail}").status_code == 200
    assert connections() == before
    assert redis.info("stats")["total_connections_received"] == made
    assert redis.connection_pool.connection_kwargs["socket_timeout"] == 3  # RQ's own Worker would have made it 415


@pytest.mark.parametrize("users", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_with_thousands_of_users_the_list_answers_at_once(
    services: Services, redis: Redis, operator: FlaskClient, users: int
) -> None:
    pairs = [(UUID(int=nr + 1), uuid4()) for nr in range(users)]
    services.lanes.enqueue_many(pairs)
    assert redis.scard("rq:queues") == users
    waiting, took_s = _timed(operator)
    assert len(waiting) == 501
    assert waiting[-1]["name"] == f"… and {users - 500} more"
    assert took_s < 10  # what it takes on a quiet machine is a benchmark's to say
    jobs = dict(pairs)
    calls = count()
    while leases := services.lanes.lease("w", next(calls), 500, 60).leases:
        for lease in leases:
            services.lanes.finish(lease, [jobs[lease.user_id]])
    listed, took_s = _timed(operator)
    assert listed == []
    assert redis.scard("rq:queues") == 0
    assert took_s < 5


def _timed(operator: FlaskClient) -> tuple[list[Any], float]:
    began = time.monotonic()
    queues = read(operator, "queues")["queues"]
    assert operator.get("/ops/rq/").status_code == 200
    return queues, time.monotonic() - began


def test_many_applications_in_one_process_each_have_their_own(services: Services) -> None:
    for _ in range(3):
        assert read(operator_of(web_of(services)), "queues") == {"queues": []}


def test_rqs_own_reading_agrees_with_ours(redis: Redis, operator: FlaskClient, dead: list[Accepted]) -> None:
    queue = keys.queue_name(dead[0].user_id)
    for job in jobs_of(operator, queue):
        theirs = Job.fetch(job["id"], connection=redis, serializer=JSONSerializer)
        assert theirs.latest_result().exc_string == job["exc_info"]
        assert theirs.created_at.isoformat() == job["created_at"]
        assert theirs.description == job["description"]
