"""Two deployments on one Redis: each has lanes of its own, or the second does not start."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import redis
from click.testing import CliRunner
from rq.suspension import resume, suspend

from onelane import keys
from onelane.bootstrap import Services, open_services, open_worker
from onelane.cli import onelane
from onelane.config import Settings
from onelane.dev.embedded import EmbeddedPostgres
from onelane.errors import EXIT_CONFIG, LanesForeign
from onelane.lanes.scripts import text_of
from onelane.operations.snapshot import Survey
from onelane.postgres.migrations import migrate
from onelane.sessions import publish_policies
from onelane_web import create_app
from onelane_web.ops.attempts import Attempts
from onelane_web.ops.rq_state import RqState
from tests.conftest import DEADLINE_S, Accept, RunWorker, accept_all, eventually
from tests.duties import duties_of
from tests.processes import environment, worker_process
from tests.rows import Rows

MESSAGES = 40
PREFIX = "staging:"


@pytest.fixture(scope="module")
def other_url(postgres: EmbeddedPostgres) -> str:
    """Make a second database on the same server, as staging has one beside production."""
    name = f"other_{uuid4().hex}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    parts = urlsplit(postgres.url)
    url = parts._replace(path=f"/{name}").geturl()
    migrate(url)
    return url


@pytest.fixture
def other_settings(settings: Settings, other_url: str) -> Settings:
    return settings.model_copy(update={"database_url": other_url})


@contextmanager
def opened(settings: Settings) -> Iterator[Services]:
    services = open_services(settings, redis_timeout_s=3)
    try:
        yield services
    finally:
        services.close()


def everything(client: redis.Redis) -> dict[str, Any]:
    """Dump all keys but those that count."""
    names = [text_of(key) for key in client.keys("*")]
    return {name: client.dump(name) for name in names if not name.startswith(("counted:", "numbers", "minutes"))}


def test_a_second_deployment_does_not_start_and_touches_nothing_of_the_first(
    services: Services, other_settings: Settings, accept: Accept
) -> None:
    accept("alice")
    before = everything(services.lanes.client)
    with pytest.raises(LanesForeign, match=r"set REDIS_PREFIX.*onelane doctor --adopt-redis"):
        open_worker(other_settings)
    assert everything(services.lanes.client) == before


def test_a_second_deployment_s_web_accepts_and_leaves_the_first_one_s_lanes_alone(
    services: Services, other_settings: Settings, accept: Accept
) -> None:
    message = accept("alice")
    before = everything(services.lanes.client)
    with opened(other_settings) as other:
        Rows(other.database).empty()
        client = create_app(other).test_client()
        assert client.get("/readyz").json == {
            "status": "not ready", "postgres": "ok", "redis": "another deployment's", "migrations": "ok", "inbox": "ok"
        }  # fmt: skip
        accept_all(other, [("bob", "hello")])
        assert Rows(other.database).waiting() == 1
        duties = duties_of(other)
        acts = (
            duties._reconcilers[0].reconcile,
            partial(other.lanes.forget_session, message.user_id),
            lambda: Survey(other.lanes).snapshot(),
        )
        for act in acts:
            with pytest.raises(LanesForeign):
                act()
    assert everything(services.lanes.client) == before


def have_handled(messages: int, *deployments: Rows) -> bool:
    return all(rows.count("processed") == messages for rows in deployments)


@pytest.mark.slow
def test_while_a_second_deployment_starts_every_message_of_the_first_is_handled_and_the_second_ends_with_78(
    services: Services, settings: Settings, other_settings: Settings, rows: Rows, tmp_path: Path
) -> None:
    log = tmp_path / "second.log"
    accept_all(services, [(f"user {nr}", "hello") for nr in range(MESSAGES // 2)])
    with worker_process(settings), worker_process(other_settings, log=log, is_supervised=True) as second:
        accept_all(services, [(f"user {nr}", "again") for nr in range(MESSAGES // 2)])
        eventually(lambda: rows.count("processed") == MESSAGES)
        assert second.wait(DEADLINE_S) == EXIT_CONFIG
    assert "set REDIS_PREFIX" in log.read_text()


def test_who_has_found_another_deployment_s_lanes_takes_nothing_over_when_redis_loses_its_memory(
    services: Services, other_settings: Settings
) -> None:
    services.lanes.check_owner()
    with opened(other_settings) as other:
        with pytest.raises(LanesForeign):
            other.lanes.check_owner()
        services.lanes.client.flushall()
        with pytest.raises(LanesForeign):
            other.lanes.check_owner()
    services.lanes.check_owner()


@pytest.mark.slow
def test_a_worker_whose_redis_becomes_another_deployment_s_ends_with_78(services: Services, settings: Settings) -> None:
    worker = open_worker(settings)
    with ThreadPoolExecutor(1) as pool:
        code = pool.submit(worker.run)
        eventually(lambda: Survey(services.lanes).snapshot().workers_alive)
        services.lanes.client.hset(keys.INSTANCE, "id", str(uuid4()))
        assert code.result(DEADLINE_S) == EXIT_CONFIG


@pytest.mark.slow
def test_with_a_prefix_two_deployments_share_a_redis_also_when_it_loses_its_memory(
    services: Services, settings: Settings, other_settings: Settings, rows: Rows, run_worker: RunWorker
) -> None:
    staging = other_settings.model_copy(update={"redis_prefix": PREFIX})
    with opened(staging) as other:
        others = Rows(other.database)
        others.empty()
        publish_policies(other.database, staging.policies)
        with run_worker(settings), run_worker(staging):
            for handled in (5, 10):
                accept_all(services, [(f"user {nr}", "hello") for nr in range(5)])
                accept_all(other, [(f"user {nr}", "hello") for nr in range(5)])
                services.lanes.client.flushall()
                eventually(partial(have_handled, handled, rows, others))
        assert [worker.is_alive for worker in Survey(other.lanes).snapshot().workers] == []


def test_no_key_of_a_deployment_is_without_its_prefix(
    settings: Settings, run_worker: RunWorker, services: Services
) -> None:
    numbered = urlsplit(settings.redis_url)._replace(path="/1").geturl()
    staging = settings.model_copy(update={"redis_url": numbered, "redis_prefix": PREFIX})
    with opened(staging) as other:
        rows = Rows(other.database)
        with run_worker(staging):
            accept_all(other, [("alice", "hello"), ("bob", "hello")])
            suspend(other.lanes.client)
            resume(other.lanes.client)
            eventually(lambda: rows.count("processed") == 2)
        other.upload.flush()
        Attempts(other.lanes.client).wait_s("198.51.100.7")
        state = RqState(other.lanes.client)
        assert (state.queues(), state.workers()) == (([], 0), [])
    with redis.Redis.from_url(numbered) as plain:
        found = {text_of(key) for key in plain.keys("*")}
    assert {key for key in found if not key.startswith(PREFIX)} == set()
    assert {f"{PREFIX}{key}" for key in ("fence", "instance", "ops:tried")} <= found


def test_a_restored_database_adopts_a_redis_in_which_nobody_works(
    services: Services, other_settings: Settings, accept: Accept, run_worker: RunWorker, settings: Settings
) -> None:
    accept("alice")
    call = partial(CliRunner().invoke, onelane, env=environment(other_settings))
    with run_worker(settings):
        eventually(lambda: Survey(services.lanes).snapshot().workers_alive)
        refused = call(["doctor", "--adopt-redis"], input="y\n")
        assert refused.exit_code == 1
        assert "another deployment works in this Redis" in refused.output
    services.lanes.client.delete(keys.RQ_WORKERS)
    assert call(["doctor", "--adopt-redis"], input="n\n").exit_code == 1
    assert isinstance(call(["lanes"]).exception, LanesForeign)
    assert call(["doctor", "--adopt-redis"], input="y\n").exit_code == 0
    assert "already" in call(["doctor", "--adopt-redis"]).output
    with pytest.raises(LanesForeign):
        services.lanes.check_owner()
