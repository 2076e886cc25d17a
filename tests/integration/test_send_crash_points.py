"""A worker that sends replies dies, or freezes, at every point between lease and release; another one goes on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.dev.embedded.child import Child
from onelane.dev.stack import PYTHON
from onelane.sessions import publish_policies
from onelane.testing.fake_providers import Fault
from tests.conftest import DEADLINE_S, RunWorker, eventually
from tests.outbox_fakes import Chat, sending_to_fakes
from tests.processes import worker_process

FAULTY = [*PYTHON, "tests.faulty_worker"]
POINTS = ["begin_sends 1", "send 1", "settle_sends 1", "send 2", "settle_sends 2", "lease 1", "finish 1"]
TEXTS = ["one", "two", "three"]
USERS = 3


@pytest.fixture
def chat(services: Services, settings: Settings, tmp_path: Path) -> Iterator[Chat]:
    quick = settings.model_copy(
        update={"lock_ttl_s": 1, "send_deadline_s": 1, "unknown_hold_s": 0, "worker_kinds": ("out",)}
    )
    with sending_to_fakes(quick, tmp_path, "telegram", "standard", "slack") as (fakes, pointed):
        publish_policies(services.database, pointed.policies)
        sending = open_services(pointed, redis_timeout_s=3)
        yield Chat(sending, pointed, fakes)
        sending.close()


def answered(chat: Chat, run_worker: RunWorker, channel: str) -> list[UUID]:
    """Let users' messages be answered, and nothing be sent."""
    with run_worker(chat.settings.model_copy(update={"worker_kinds": ("in",)})):
        users = [chat.write(channel, f"user {nr}", *TEXTS) for nr in range(USERS)]
        eventually(lambda: all(len(chat.states(user)) == len(TEXTS) for user in users))
    return users


def assert_fates_are_known(chat: Chat, channel: str, users: list[UUID]) -> None:
    """In order, none twice, none lost; what is unknown is shown as given up, where nobody can be asked."""
    assert chat.fakes.received.doubles() == {} or channel == "standard"
    states = [chat.states(user) for user in users]
    unknown = sum(of_user.count("unknown") for of_user in states)
    assert unknown <= (USERS if channel == "telegram" else 0)
    assert {state for of_user in states for state in of_user} <= {"sent", "unknown"}
    for texts in chat.seen(channel).values():
        once = list(dict.fromkeys(texts))
        assert once == [text for text in TEXTS if text in once]
    seen = sum(len(dict.fromkeys(texts)) for texts in chat.seen(channel).values())
    assert seen >= USERS * len(TEXTS) - unknown


@pytest.mark.slow
@pytest.mark.parametrize("side", ["after", "before"])
@pytest.mark.parametrize("point", POINTS)
def test_kill_9_anywhere_in_a_send_loses_doubles_and_reorders_nothing(
    chat: Chat, run_worker: RunWorker, point: str, side: str
) -> None:
    """Of Telegram, which takes no key and can be asked for nothing."""
    channel = "telegram"
    users = answered(chat, run_worker, channel)
    with worker_process(chat.settings, program=FAULTY, fault=f"kill {side} {point}") as doomed:
        assert doomed.wait(DEADLINE_S) == -signal.SIGKILL
        with worker_process(chat.settings):
            eventually(lambda: chat.outbox == [])
    assert_fates_are_known(chat, channel, users)


def _wait_until_frozen(frozen: Child) -> None:
    eventually(lambda: os.waitid(os.P_PID, frozen.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG))


@pytest.mark.slow
@pytest.mark.parametrize("channel", ["telegram", "slack"])
@pytest.mark.parametrize("point", ["after begin_sends 1", "before send 1", "after send 1", "before settle_sends 1"])
def test_a_worker_frozen_past_its_lease_sends_nothing_twice(
    chat: Chat, run_worker: RunWorker, point: str, channel: str, tmp_path: Path
) -> None:
    users = answered(chat, run_worker, channel)
    log = tmp_path / "frozen.log"
    with worker_process(chat.settings, program=FAULTY, fault=f"stop {point}", stall_limit_s=600, log=log) as frozen:
        _wait_until_frozen(frozen)
        with worker_process(chat.settings):
            eventually(lambda: chat.outbox == [])
            frozen.send_signal(signal.SIGCONT)
            again = chat.write(channel, "user 0", "four")
            with run_worker(chat.settings.model_copy(update={"worker_kinds": ("in",)})):
                eventually(lambda: chat.states(again)[-1] == "sent")
    assert chat.fakes.received.doubles() == {}
    for texts in chat.seen(channel).values():
        assert texts == [text for text in [*TEXTS, "four"] if text in texts]
    assert all(set(chat.states(user)) <= {"sent", "unknown"} for user in users)


@pytest.mark.slow
def test_a_redis_that_forgets_everything_in_a_send_changes_only_its_time(chat: Chat, run_worker: RunWorker) -> None:
    users = answered(chat, run_worker, "telegram")
    chat.fakes.play(Fault("answer", times=1, wait_s=0.5), share=1, channel="telegram")
    with worker_process(chat.settings):
        eventually(lambda: "sending" in chat.outbox)
        chat.services.lanes.client.flushall()
        eventually(lambda: chat.outbox == [])
    assert_fates_are_known(chat, "telegram", users)
