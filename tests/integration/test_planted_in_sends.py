"""Bugs planted into the outbox, one at a time: each is seen by the rule that is there for it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.postgres.migrations import shipped_code
from onelane.testing.fake_providers import FakeProviders, Fault
from tests.chaos.mutants.catalogue import NEW_KEY_EACH_TIME, NO_MARK, ONE_LOCK, STATUSES_DOWN
from tests.chaos.mutants.planting import Sql
from tests.conftest import RunWorker, eventually
from tests.forked_workers import forked_workers
from tests.outbound import CHANNELS, Outbound, fakes_of, hurry, misjudged, outbound, problems, sending_to

DONE_S = 30.0
SLOW_S = 1.5
TURN = "SELECT FROM messages WHERE direction = 'in' AND state = 'processed' AND text = %s"
SENT = "SELECT FROM messages WHERE direction = 'out' AND sent_at IS NOT NULL AND text = %s"


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProviders]:
    folder: Path = tmp_path_factory.mktemp("fakes")
    with fakes_of(CHANNELS, folder) as fakes:
        yield fakes


@pytest.fixture
def settings(settings: Settings, fakes: FakeProviders, monkeypatch: pytest.MonkeyPatch) -> Settings:
    hurry(monkeypatch)
    changes = {"handler": "tests.outbound:say_it_back", "lock_ttl_s": 1}
    return sending_to(fakes, CHANNELS, settings).model_copy(update=changes)


@pytest.fixture
def service(services: Services, settings: Settings, fakes: FakeProviders) -> Iterator[Outbound]:
    with outbound(services, settings, fakes) as service:
        yield service


@contextmanager
def planted(service: Outbound, bug: Sql, is_planted: bool) -> Iterator[None]:
    """Plant a bug into the functions of the database for the block's time."""
    if is_planted:
        bug.into_database(service.settings.database_url)
    try:
        yield
    finally:
        for name in bug.functions:
            service.services.database.rows(shipped_code()[f"functions/{name}"])


PLANTED = pytest.mark.parametrize("is_planted", [False, True], ids=["sound", "planted"])


@pytest.mark.slow
@PLANTED
def test_a_send_without_a_mark_doubles_when_its_worker_dies(service: Outbound, is_planted: bool) -> None:
    text = f"no mark {is_planted}"
    service.fakes.plan(Fault("answer", times=1, wait_s=SLOW_S), channel="telegram", text=text)
    with planted(service, NO_MARK, is_planted), forked_workers(service.settings, service.settings.handler) as workers:
        doomed = workers.start()
        service.write("telegram", text)
        eventually(lambda: service.fakes.received.lines("visible", text=text))
        workers.kill(doomed, signal.SIGKILL)
        workers.start()
        eventually(service.is_done, DONE_S)
    assert bool(problems(service)) is is_planted


@pytest.mark.slow
@PLANTED
def test_a_resend_without_the_key_doubles(
    service: Outbound, settings: Settings, run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch, is_planted: bool
) -> None:
    if is_planted:
        monkeypatch.setattr("tests.chaos.mutants.patches.plant", monkeypatch.setattr)
        NEW_KEY_EACH_TIME.into_process()
    text = f"no key {is_planted}"
    service.fakes.plan("accept_and_drop", channel="standard", text=text)
    service.write("standard", text)
    with run_worker(settings):
        eventually(service.is_done, DONE_S)
    assert bool(problems(service)) is is_planted


@pytest.mark.slow
@PLANTED
def test_a_status_that_moves_a_reply_down_is_seen(
    service: Outbound, settings: Settings, run_worker: RunWorker, is_planted: bool
) -> None:
    texts = [f"down {number} {is_planted}" for number in range(10)]
    service.fakes.call_back(channel="twilio", states=["sent", "delivered", "read"], shuffled=True, seed=5)
    with planted(service, STATUSES_DOWN, is_planted):
        service.write("twilio", *texts)
        with run_worker(settings):
            eventually(service.is_done, DONE_S)
            eventually(lambda: service.fakes.tell("state")["pending"] == 0, DONE_S)
    assert bool(misjudged(service)) is is_planted


@pytest.mark.slow
@PLANTED
def test_replies_that_share_the_lock_of_turns_hold_them_up(
    service: Outbound, settings: Settings, run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch, is_planted: bool
) -> None:
    if is_planted:
        monkeypatch.setattr("tests.chaos.mutants.patches.plant", monkeypatch.setattr)
        ONE_LOCK.into_process()
    first, second = (f"one lock {number} {is_planted}" for number in (1, 2))
    service.fakes.plan(Fault("answer", times=1, wait_s=SLOW_S), channel="standard", text=first)
    with run_worker(settings.model_copy(update={"send_deadline_s": 10, "lock_ttl_s": 15})):
        service.write_as("standard", "one lock", first)
        eventually(lambda: service.fakes.received.lines("received", text=first))
        service.write_as("standard", "one lock", second)
        eventually(lambda: service.services.database.rows(SENT, (first,)), DONE_S)
        is_held_up = not service.services.database.rows(TURN, (second,))
    assert is_held_up is is_planted
