"""Real servers for everything that they decide: one PostgreSQL and one Redis a run, emptied before each test."""

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
import structlog
from hypothesis import settings as hypothesis_settings
from structlog.testing import capture_logs

from onelane.bootstrap import Services, Worker, open_services, open_worker
from onelane.config import Channel, Settings
from onelane.deliveries import Accepted, Delivery
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from onelane.dev.embedded.postgres import without_libpq
from onelane.errors import StoreUnavailable
from onelane.inbox.items import Line
from onelane.postgres.migrations import migrate
from onelane.processes import ending
from onelane.sessions import publish_policies
from onelane.telemetry.log import log
from tests.pooler import Pooler
from tests.rows import Rows

SECRET = "whsec_" + "dGhlIGRlbW8gY2hhbm5lbCdzIG93biBzZWNyZXQ="
DEADLINE_S = 90
BATCH = 100
NUMBERS = count()

ending.ENDS_S = DEADLINE_S  # a worker in this very process would end it

# 100 examples of each property, the same in every run; of the long ones the fast run plays fewer. The nightly profile
# plays 2,000 that nobody has seen.
hypothesis_settings.register_profile("quick", max_examples=100, deadline=None, derandomize=True, database=None)
hypothesis_settings.register_profile("nightly", max_examples=2_000, deadline=None)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def examples_of(number: int | None, base: hypothesis_settings | None = None) -> hypothesis_settings:
    """Play so many examples; with None as many as the profile says."""
    profile = hypothesis_settings()
    return hypothesis_settings(base or profile, max_examples=number or profile.max_examples)


def pytest_configure(config: pytest.Config) -> None:
    for name in os.environ.keys() - without_libpq(os.environ).keys():
        del os.environ[name]  # it would lead our clients elsewhere
    if threading.current_thread() is threading.main_thread():
        # A shell that starts us in the background has interrupts ignored, here and in everything that we start.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep what was collected out of the garbage collector's sight: looking through it was an eighth of all work."""
    gc.collect()
    gc.freeze()


NIGHTLY = (pytest.mark.slow, pytest.mark.nightly)


def slow_after(number: int, values: Iterable[Any], nightly: Container[Any] = ()) -> list[Any]:
    """Leave all but the first `number` values of a parameter to the slow run, and those in `nightly` to the nightly."""
    first = list(values)
    rest = first[number:]
    return first[:number] + [
        pytest.param(
            *(one if isinstance(one, tuple) else (one,)), marks=NIGHTLY if one in nightly else pytest.mark.slow
        )
        for one in rest
    ]


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
    other = os.environ.get("ONELANE_TEST_REDIS_SERVER")
    program = Path(other).resolve() if other else None
    with EmbeddedRedis(tmp_path_factory.mktemp("redis") / "data", program=program) as server:
        yield server


@pytest.fixture(scope="session")
def shared_pooler(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler | None]:
    """A PgBouncer before Postgres, for `make test-pooler`: it says how many connections all tests share."""
    connections = os.environ.get("ONELANE_TEST_POOLER")
    if not connections:
        yield None
        return
    os.environ["PG_POOLER"] = "transaction"  # for all commands and processes
    with Pooler(tmp_path_factory.mktemp("pooler"), postgres.url, connections=int(connections)) as pooler:
        yield pooler
        assert pooler.left_behind() == []


@pytest.fixture(scope="session")
def settings(postgres: EmbeddedPostgres, redis_server: EmbeddedRedis, shared_pooler: Pooler | None) -> Settings:
    return Settings(
        database_url=shared_pooler.url if shared_pooler else postgres.url,
        pg_pooler="transaction" if shared_pooler else None,
        redis_url=redis_server.url,
        channels={"demo": Channel(provider="standard", secrets=(SECRET,))},
        development=True,
        lock_ttl_s=2,
        retry_base_s=0.05,
        retry_max_s=0.2,
        shutdown_grace_s=2,
        stall_limit_s=300,  # a worker in this very process would end it
    )


@pytest.fixture
def services(settings: Settings, request: pytest.FixtureRequest) -> Iterator[Services]:
    """Connected services on empty tables and an empty Redis; afterwards, what no test may leave behind."""
    services = open_services(settings, redis_timeout_s=3)
    rows = Rows(services.database)
    rows.empty()
    services.lanes.client.flushall()
    publish_policies(services.database, settings.policies)
    yield services
    plants_a_bug = request.node.get_closest_marker("plants_a_bug") is not None
    at_once = [] if plants_a_bug else rows.sessions_at_once()
    services.close()
    assert at_once == []


@pytest.fixture
def rows(services: Services) -> Rows:
    """Read what Postgres holds."""
    return Rows(services.database)


class Accept(Protocol):
    """Accepts one message of a sender."""

    def __call__(self, sender: str, text: str = "hello", external_id: str | None = None) -> Accepted: ...


@pytest.fixture
def accept(services: Services) -> Accept:
    numbers = count(1)

    def accept(sender: str, text: str = "hello", external_id: str | None = None) -> Accepted:
        delivery = Delivery(senders=(sender,), external_id=external_id or f"m{next(numbers)}", text=text)
        return deliver(services, [delivery])[0]

    return accept


@contextmanager
def running(settings: Settings) -> Iterator[Worker]:
    """Run a worker in this process, as `onelane worker` does in its own."""
    worker = open_worker(settings)
    thread = threading.Thread(target=worker.run, name="runner")
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def accept_all(services: Services, texts: Iterable[tuple[str, str]]) -> None:
    """Accept (sender, text) pairs in batches, as providers may send them."""
    deliveries = [Delivery(senders=(sender,), external_id=uuid4().hex, text=text) for sender, text in texts]
    for start in range(0, len(deliveries), BATCH):
        deliver(services, deliveries[start : start + BATCH])


def deliver(services: Services, lines: Sequence[Line], channel: str = "demo") -> list[Accepted]:
    """Accept a webhook's lines; what does not stand in time comes again, as from a provider."""
    accepted: list[Accepted] = eventually(partial(stand, services, lines, channel))
    return accepted


def stand(services: Services, lines: Sequence[Line], channel: str = "demo") -> list[Accepted]:
    """Accept a webhook's lines; return what stands, nothing where its provider gets no 2xx."""
    try:
        return services.intake.accept(channel, lines)
    except StoreUnavailable:
        return []


RunWorker = Callable[[Settings], AbstractContextManager[Worker]]


@pytest.fixture
def run_worker() -> RunWorker:
    return running


LogLines = list[MutableMapping[str, Any]]


@pytest.fixture
def log_lines() -> Iterator[LogLines]:
    """Events logged while the test runs."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def _root_logger_as_it_was() -> Iterator[None]:
    """Put the root logger back that a command or `configure` changed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _unconfigured_log() -> Iterator[None]:
    """Undo what a test configured: its logger would stay the first one's, and hide the next test's lines."""
    logging.getLogger("onelane").setLevel(logging.ERROR)
    yield
    structlog.reset_defaults()
    vars(log).pop("bind", None)


ROOT = Path(__file__).resolve().parent.parent
