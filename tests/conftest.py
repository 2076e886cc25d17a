"""Real servers for everything that they decide: one PostgreSQL and one Redis a run, emptied before each test."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from worker.bootstrap import Services, open_runner, open_services
from worker.config import Channel, Settings
from worker.embedded import EmbeddedPostgres, EmbeddedRedis
from worker.migrations import migrate, publish_policies
from worker.model import Accepted, Delivery

SECRET = "whsec_" + "dGhlIGRlbW8gY2hhbm5lbCdzIG93biBzZWNyZXQ="
DEADLINE_S = 20


def eventually(condition: Callable[[], Any], within_s: float = DEADLINE_S, every_s: float = 0.01) -> Any:
    """Wait until `condition()` is true and return what it answered; fail the test at the deadline."""
    ends = time.monotonic() + within_s
    while not (answer := condition()):
        assert time.monotonic() < ends, f"not within {within_s} s: {condition}"
        time.sleep(every_s)
    return answer


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    # fsync protects from a machine's crash, which no test makes; a killed server loses nothing without it.
    folder = tmp_path_factory.mktemp("postgres") / "data"
    with EmbeddedPostgres(folder, {"fsync": "off", "max_connections": "200"}) as server:
        migrate(server.url)
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis") / "data") as server:
        yield server


@pytest.fixture
def settings(postgres: EmbeddedPostgres, redis_server: EmbeddedRedis) -> Settings:
    return Settings(
        database_url=postgres.url,
        redis_url=redis_server.url,
        channels={"demo": Channel(provider="standard", secrets=(SECRET,))},
        development=True,
        lock_ttl_s=2,
        retry_base_s=0.05,
        retry_max_s=0.2,
        shutdown_grace_s=2,
    )


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    """Connected services on empty tables and an empty Redis."""
    services = open_services(settings, redis_timeout_s=3)
    services.database.rows("TRUNCATE users, conversation_sessions, messages, tool_outputs, channel_policies CASCADE")
    services.lanes.client.flushall()
    publish_policies(services.database, settings.policies)
    yield services
    services.close()


@pytest.fixture
def accept(services: Services) -> Callable[..., Accepted]:
    """Accept one message of a sender."""

    def accept(sender: str, text: str = "hello", external_id: str | None = None) -> Accepted:
        accept.count += 1  # type: ignore[attr-defined]
        delivery = Delivery(sender=sender, external_id=external_id or f"m{accept.count}", text=text)  # type: ignore[attr-defined]
        return services.intake.accept("demo", [delivery])[0]

    accept.count = 0  # type: ignore[attr-defined]
    return accept


@contextmanager
def running(settings: Settings) -> Iterator[Any]:
    """Run a worker in this process, as `lanekeeper worker` does in its own."""
    runner = open_runner(settings)
    thread = threading.Thread(target=runner.run, name="runner")
    thread.start()
    try:
        yield runner
    finally:
        runner.stop()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


@pytest.fixture
def run_worker() -> Callable[[Settings], Any]:
    return running


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("lanekeeper").setLevel(logging.ERROR)


ROOT = Path(__file__).resolve().parent.parent
