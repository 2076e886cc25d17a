"""A Redis that may evict keys: not ready, and no lanes are taken, unless the settings allow it."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from redis import Redis

from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.dev.embedded import EmbeddedRedis
from onelane.doctor import examination, finding
from onelane.lanes.lanes import Lanes
from onelane.processes import eviction
from onelane_web import create_app
from tests.conftest import Accept, LogLines, RunWorker, accept_all, eventually
from tests.processes import worker_process
from tests.rows import Rows

MEMORY = 6_000_000
FLOOD = 400


@pytest.fixture(autouse=True)
def _keeps_again(services: Services) -> Iterator[None]:
    yield
    services.lanes.client.config_set("maxmemory-policy", "noeviction")


@pytest.fixture
def guest(services: Services) -> Iterator[str]:
    services.lanes.client.execute_command("ACL SETUSER guest on >secret ~* &* +@all -info")
    yield "guest"
    services.lanes.client.execute_command("ACL DELUSER guest")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_evicts_is_not_ready_and_ready_again_when_it_keeps(
    services: Services, settings: Settings, redis_server: EmbeddedRedis, guest: str, policy: str
) -> None:
    """Whether it is INFO or CONFIG that the host allows, and whenever the policy changes."""
    url = f"redis://{guest}:secret@127.0.0.1:{redis_server.port}/0"
    restricted = open_services(settings.model_copy(update={"redis_url": url}))
    for client in (create_app(services).test_client(), create_app(restricted).test_client()):
        assert client.get("/readyz").status_code == 200
        services.lanes.client.config_set("maxmemory-policy", policy)
        response = client.get("/readyz")
        assert (response.status_code, (response.json or {})["redis"]) == (503, "evicting")
        services.lanes.client.config_set("maxmemory-policy", "noeviction")
        assert client.get("/readyz").status_code == 200
    restricted.close()


def test_workers_take_no_lanes_of_a_redis_that_evicts_and_come_back_by_themselves(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    run_worker: RunWorker,
    log_lines: LogLines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(eviction, "LOOK_EVERY_S", 0.01)
    looks = []
    policy = Lanes.evicting_policy

    def noted(lanes: Lanes) -> str | None:
        looks.append(policy(lanes))
        return looks[-1]

    monkeypatch.setattr(Lanes, "evicting_policy", noted)
    services.lanes.client.config_set("maxmemory-policy", "allkeys-lru")
    with run_worker(settings):
        accept("alice")
        before = len(looks)
        eventually(lambda: len(looks) > before + 5)
        assert rows.waiting() == 1
        services.lanes.client.config_set("maxmemory-policy", "noeviction")
        eventually(lambda: rows.waiting() == 0)
    assert [line["event"] for line in log_lines if line["event"].startswith("redis_")] == [
        "redis_evicts",
        "redis_keeps",
    ]


def test_the_doctor_fails_where_redis_evicts_and_warns_where_that_is_allowed(
    services: Services, settings: Settings
) -> None:
    services.lanes.client.config_set("maxmemory-policy", "volatile-lru")
    for may_evict, health in ((False, "failed"), (True, "warning")):
        deployment = finding.Deployment(
            settings.model_copy(update={"redis_may_evict": may_evict}), services.database, services.lanes
        )
        [found] = [one.finding for one in examination.examine(deployment) if one.check == "eviction"]
        assert found.health == health
        assert "volatile-lru" in found.found


def test_where_it_is_allowed_workers_go_on_and_the_web_is_ready(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    settings = settings.model_copy(update={"redis_may_evict": True})
    services.lanes.client.config_set("maxmemory-policy", "allkeys-lru")
    allowed = open_services(settings)
    assert create_app(allowed).test_client().get("/readyz").status_code == 200
    allowed.close()
    with run_worker(settings):
        accept("alice")
        eventually(lambda: rows.waiting() == 0)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru"])
def test_what_is_evicted_under_load_loses_no_message_and_no_order(
    rows: Rows, services: Services, settings: Settings, tmp_path: Path, policy: str
) -> None:
    users, each = 100, 10
    server = EmbeddedRedis(tmp_path / "redis", settings={"maxmemory": str(MEMORY), "maxmemory-policy": policy})
    with server, Redis.from_url(server.url) as redis:
        settings = settings.model_copy(update={"redis_url": server.url})
        near = open_services(settings)
        with worker_process(settings, redis_may_evict=True), worker_process(settings, redis_may_evict=True):
            for nr in range(each):
                accept_all(near, [(f"user {user}", f"hello {nr}") for user in range(users)])
                for _ in range(FLOOD):
                    redis.set(f"foreign:{uuid4()}", "x" * 10_000, ex=3_600)
            eventually(lambda: rows.waiting() == 0, within_s=120)
        near.close()
        evicted = redis.info("stats")["evicted_keys"]
    assert evicted > FLOOD
    assert rows.out_of_order() == []
    assert rows.answered() == users * each
    print(f"\n{evicted} keys evicted")  # noqa: T201 - for -s
