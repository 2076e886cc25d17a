"""Workers that die, freeze or lose answers while they send: judged by what the providers' own journal shows."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from redis import Redis

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.stack import PYTHON
from onelane.testing.fake_providers import FakeProviders, Fault
from tests.conftest import DEADLINE_S, NIGHTLY, RunWorker, eventually
from tests.forked_workers import Forks, forked_workers
from tests.outbound import CHANNELS, HANDLER, TAKEN, Outbound, fakes_of, hurry, outbound, problems, sending_to
from tests.processes import worker_process
from tests.proxy import Proxy

SLOW_S = 0.06
SEED = 16
SEND_S = 0.09
"""From a lease to its release: a request takes up to SLOW_S."""
KILLS = 15
KILLS_OF_A_NIGHT = int(os.environ.get("ONELANE_TEST_KILLS", "50"))
NONE_LEFT = -1
AT_ONCE = 3
"""So many workers live at any time: others go on at once with what the dead one did not hold."""
DONE_S = 60.0
USERS = 3
POINTS = ["send 2", "lease 1", "begin_sends 1", "settle_sends 2", "finish 1"]
FAULTY = [*PYTHON, "tests.faulty_worker"]


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProviders]:
    folder: Path = tmp_path_factory.mktemp("fakes")
    with fakes_of(CHANNELS, folder) as fakes:
        yield fakes


@pytest.fixture
def settings(settings: Settings, fakes: FakeProviders) -> Settings:
    changes = {"handler": "tests.outbound:say_it_back", "lock_ttl_s": 1}
    return sending_to(fakes, CHANNELS, settings).model_copy(update=changes)


@pytest.fixture
def service(services: Services, settings: Settings, fakes: FakeProviders) -> Iterator[Outbound]:
    with outbound(services, settings, fakes) as service:
        yield service


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channel", "kills"),
    [
        pytest.param(channel, kills, marks=marks)
        for kills, marks in ((KILLS, ()), (KILLS_OF_A_NIGHT, NIGHTLY))
        for channel in ("twilio", "slack", "telegram")
    ],
)
def test_a_worker_killed_at_any_instant_of_a_send_leaves_no_reply_open_lost_or_doubled(
    channel: str, kills: int, service: Outbound, settings: Settings, record_property: Callable[[str, object], None]
) -> None:
    service.fakes.play("none", Fault("answer", times=1, wait_s=SLOW_S), share=1, seed=SEED)
    users: list[str] = []
    dice = random.Random(SEED)
    settings = settings.model_copy(update={"send_slots": 1})
    killed: list[UUID] = []
    with forked_workers(settings, settings.handler) as workers:
        for _ in range(AT_ONCE):
            workers.start()
        while len(killed) < kills:
            users.append(f"kill {len(killed)} of {channel} in {kills}, user {len(users)}")
            [user_id] = service.write(channel, users[-1])
            doomed = eventually(partial(holder_or_none_left, service, user_id), every_s=0.0005)
            if doomed == NONE_LEFT:
                continue
            time.sleep(dice.uniform(0, SEND_S))  # the instant is drawn, not waited for
            eventually(partial(freezes_beside, killed, doomed, workers, service))
            workers.kill(doomed)
            killed.append(user_id)
            workers.start()
        eventually(service.is_done, DONE_S)
    replies = [reply for reply in service.replies() if reply.text in users]
    assert problems(service) == []
    assert len(replies) == len(users)
    states = Counter(reply.state for reply in replies)
    seen = [message for message in service.fakes.received.visible(channel) if message.text in users]
    again = Counter(line["text"] for line in service.fakes.received.lines("received", channel=channel, what="send"))
    twice = sum(again[user] > 1 for user in users)
    record_property("kills", f"{kills}: {dict(states)}, {len(seen)} seen, {twice} requested more than once")
    if channel == "telegram":
        assert set(states) <= {*TAKEN, "unknown"}
    else:
        assert set(states) <= TAKEN
        assert len(seen) == len({message.key for message in seen}) == len(users)


def freezes_beside(killed: list[UUID], doomed: int, workers: Forks, service: Outbound) -> bool:
    """Stop a process, unless it has gone on to a user of an earlier kill: none is sent again twice."""
    workers.kill(doomed, signal.SIGSTOP)
    if any(holder(service, user_id) == doomed for user_id in killed):
        workers.kill(doomed, signal.SIGCONT)
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("side", ["after", "before"])
@pytest.mark.parametrize("point", POINTS)
def test_kill_9_around_any_call_of_a_send_loses_doubles_and_reorders_nothing(
    point: str,
    side: str,
    service: Outbound,
    settings: Settings,
    run_worker: RunWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry(monkeypatch)
    settings = settings.model_copy(update={"handler": HANDLER})
    service.write("twilio", *(f"{side} {point}, {number}" for number in range(USERS)))
    with run_worker(settings.model_copy(update={"worker_kinds": ("in",)})):
        eventually(lambda: len(service.replies()) == USERS * 3)
    fault = f"kill {side} {point}"
    with worker_process(settings, program=FAULTY, handler=HANDLER, fault=fault, worker_kinds="out") as doomed:
        assert doomed.wait(DEADLINE_S) == -signal.SIGKILL
    with run_worker(settings):
        eventually(service.is_done, DONE_S)
    assert problems(service) == []
    assert {reply.state for reply in service.replies()} <= TAKEN


def holder_or_none_left(service: Outbound, user_id: UUID) -> int | None:
    """Return who has the lease of a user's replies; NONE_LEFT when this test came too late to see it."""
    return holder(service, user_id) or (None if service.has_left(user_id) else NONE_LEFT)


def holder(service: Outbound, user_id: UUID) -> int | None:
    """Return the process that has the lease of a user's replies."""
    name = service.services.out_lanes.client.hget(keys.lock(user_id, keys.OUT), "worker")
    return int(str(name).split(".")[-2]) if name else None


@pytest.mark.slow
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_worker_frozen_beyond_its_lease_in_a_send_doubles_nothing(
    channel: str, service: Outbound, settings: Settings
) -> None:
    """It wakes when another has settled the reply; that it was accepted is taken from whoever knows."""
    text = f"frozen on {channel}"
    service.fakes.plan(Fault("answer", times=1, wait_s=0.5), channel=channel, text=text)
    with forked_workers(settings, settings.handler) as workers:
        frozen = workers.start()
        service.write(channel, text)
        eventually(lambda: service.fakes.received.lines("received", text=text))
        workers.kill(frozen, signal.SIGSTOP)
        workers.start()
        eventually(service.is_done, DONE_S)
        workers.kill(frozen, signal.SIGCONT)
        service.write(channel, f"{text}, and then")
        eventually(service.is_done, DONE_S)
    assert problems(service) == []


@pytest.mark.slow
@pytest.mark.parametrize("call", ["begin_sends", "settle_sends"])
def test_lost_answers_of_its_sql_calls_double_and_lose_no_reply(
    call: str, service: Outbound, settings: Settings, run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    with Proxy(settings.database_url) as proxy:
        fault = proxy.drop_reply(call.encode(), nth=2, times=5)
        with run_worker(settings.model_copy(update={"database_url": proxy.url})):
            for channel in CHANNELS:
                service.write(channel, *(f"{call} is lost, {number} on {channel}" for number in range(10)))
            eventually(service.is_done, DONE_S)
        assert fault.struck.is_set()
    assert problems(service) == []
    assert {reply.state for reply in service.replies()} <= TAKEN


@pytest.mark.slow
def test_a_redis_that_forgets_everything_doubles_and_loses_no_reply(
    service: Outbound, settings: Settings, run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    service.fakes.play(Fault("answer", times=1, wait_s=0.05), share=1)
    with run_worker(settings), Redis.from_url(settings.redis_url) as redis:
        for number in range(20):
            for channel in CHANNELS:
                service.write(channel, *(f"flush {number}, {user} on {channel}" for user in range(5)))
            redis.flushall()
        eventually(service.is_done, DONE_S)
    assert problems(service) == []
    assert {reply.state for reply in service.replies()} <= TAKEN
