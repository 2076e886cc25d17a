"""RQ's commands to a worker: heard as long as Redis answers, and nothing of them outlives the worker."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from rq.command import parse_payload, send_command

from onelane.bootstrap import WORKER_REDIS_TIMEOUT_S, Services
from onelane.config import Settings
from onelane.dev.embedded import EmbeddedRedis
from onelane.errors import LanesUnavailable
from onelane.lanes.scripts import connect
from onelane.processes import commands
from onelane.processes.commands import Commands
from onelane.processes.registration import Registration, worker_name
from tests.conftest import DEADLINE_S, LogLines, RunWorker, eventually
from tests.proxy import Proxy
from tests.refusing import USER, Limited

WAIT_FOR_CALLS = {"handlers", "shifts", "lanes", "sender"}
"""Threads that nobody can make do anything any more."""
SLACK_S = 5.0
"""For a machine that is busy."""


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with Proxy(settings.redis_url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[redis.Redis]:
    client = connect(proxy.url, timeout_s=WORKER_REDIS_TIMEOUT_S, wait_s=1, connections_max=3)
    yield client
    client.close()


def read_until(condition: Callable[[], object], reader: Commands) -> None:
    def found() -> object:
        reader.read()
        return condition()

    eventually(found)


@pytest.mark.slow
def test_the_first_call_of_rq_to_a_redis_that_went_silent_ends_at_our_time_out(
    client: redis.Redis, proxy: Proxy, services: Services
) -> None:
    client.ping()
    with proxy.silencing():
        began = time.monotonic()
        with pytest.raises(LanesUnavailable):
            Registration(client, worker_name(), services.lanes.roster.note)
    assert time.monotonic() - began < 2 * WORKER_REDIS_TIMEOUT_S + SLACK_S
    assert client.connection_pool.connection_kwargs["socket_timeout"] == WORKER_REDIS_TIMEOUT_S


def test_a_subscription_that_went_silent_is_made_again(
    client: redis.Redis, proxy: Proxy, services: Services, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    monkeypatch.setattr(commands, "ASK_EVERY_S", 0.1)
    heard: set[str] = set()
    reader = Commands(client, "rq:pubsub:one", lambda message: heard.add(parse_payload(message)["command"]))
    read_until(lambda: send_command(services.lanes.client, "one", "before") or "before" in heard, reader)
    proxy.silence()
    monkeypatch.setattr(commands, "ANSWER_MAX_S", 0.5)
    read_until(lambda: "commands_lost" in [line["event"] for line in log_lines], reader)
    monkeypatch.setattr(commands, "ANSWER_MAX_S", DEADLINE_S)
    read_until(lambda: send_command(services.lanes.client, "one", "after") or "after" in heard, reader)
    assert [line["error"] for line in log_lines if line["event"] == "commands_lost"] == [commands.SILENT]
    reader.close()


def test_a_worker_that_redis_refuses_as_it_ends_leaves_no_thread_and_no_connection_behind(
    services: Services, settings: Settings, redis_server: EmbeddedRedis, run_worker: RunWorker
) -> None:
    """Each such worker asked Redis for a connection once a second, for as long as its process lived."""
    with Limited(redis_server) as limited:
        earlier = set(threading.enumerate())
        with run_worker(settings.model_copy(update={"redis_url": limited.url})) as worker:
            name = worker.runner._registration.pubsub_channel_name
            eventually(lambda: services.lanes.client.pubsub_numsub(name)[0][1] == 1)
            limited.allow("-@all")
        left = {thread for thread in set(threading.enumerate()) - earlier if thread.name not in WAIT_FOR_CALLS}
        eventually(lambda: not any(thread.is_alive() for thread in left))
        eventually(lambda: USER not in {one["user"] for one in services.lanes.client.client_list()})
