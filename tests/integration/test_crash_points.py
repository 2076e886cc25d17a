"""A worker dies, or freezes, at every point between lease and finish; another one goes on."""

import os
import signal
from pathlib import Path
from threading import Event

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.embedded.child import Child
from onelane.dev.stack import PYTHON
from onelane.model import Lease
from onelane.outcomes import SettleOutcome
from onelane.postgres.migrations import shipped_code
from onelane.turns.records import Records
from tests import loops
from tests.by_hand import ByHand
from tests.conftest import DEADLINE_S, Accept, eventually, slow_after
from tests.processes import worker_process
from tests.rows import Rows

USERS = 3
SIXTEEN = 16
"""Lanes whose calls share lists."""
MESSAGES = 3
FAULTY = [*PYTHON, "tests.faulty_worker"]
POINTS = ["lease 1", "begin_turns 2", "handler 2", "settle_turns 2", "finish 2"]
FAILING_POINTS = ["settle_turns 2", "bury 1", "park 1"]


def _runs(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("side", slow_after(1, ["after", "before"]))
@pytest.mark.parametrize("point", slow_after(1, POINTS))
@pytest.mark.parametrize("lanes", slow_after(1, [USERS, SIXTEEN]))
def test_kill_9_anywhere_in_a_turn_loses_doubles_and_reorders_nothing(
    rows: Rows, lanes: int, point: str, side: str, services: Services, settings: Settings, accept: Accept
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": 1, "worker_slots": lanes - 1})
    users = [accept(f"user {nr}", "text 1").user_id for nr in range(lanes)]
    for text in range(2, MESSAGES + 1):
        for nr in range(lanes):
            accept(f"user {nr}", f"text {text}")
    with worker_process(settings, program=FAULTY, fault=f"kill {side} {point}") as doomed:
        assert doomed.wait(DEADLINE_S) == -signal.SIGKILL
        with worker_process(settings):
            eventually(lambda: rows.waiting() == 0)
    for user_id in users:
        assert rows.texts(user_id) == ["text 1", "text 2", "text 3"]
        inbound = rows.inbound(user_id)
        assert [message.state for message in inbound] == ["processed"] * MESSAGES
        assert len({message.session_id for message in inbound}) == 1
    assert rows.out_of_order() == []


@pytest.mark.slow
def test_a_worker_that_dies_after_a_tool_leaves_the_same_list_and_the_choice_means_the_same(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": 1})
    user_id = accept("alice", "view_sites_fr").user_id
    bot, asked = "tests.counted_sites:handle", tmp_path / "asked"
    fault = "kill before settle_turns 1"
    with worker_process(settings, program=FAULTY, handler=bot, fault=fault, bot_log=asked) as doomed:
        assert doomed.wait(DEADLINE_S) == -signal.SIGKILL
    assert rows.texts(user_id) == []
    with worker_process(settings, handler=bot, bot_log=asked):
        eventually(lambda: rows.waiting() == 0)
        accept("alice", "option_1_fr")
        eventually(lambda: rows.waiting() == 0)
    shown, chosen = rows.texts(user_id)
    assert "1. Champigny" in shown
    assert chosen.startswith("Champigny")
    assert len(_runs(asked)) == 1
    assert len({message.session_id for message in rows.inbound(user_id)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("side", ["after", "before"])
@pytest.mark.parametrize("point", FAILING_POINTS)
def test_kill_9_while_a_failure_is_noted_counts_it_once_and_goes_on(
    rows: Rows, point: str, side: str, services: Services, settings: Settings, accept: Accept
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": 1, "attempts_max": 3, "retry_base_s": 0.05})
    user_id = accept("eve", "raise").user_id
    accept("eve", "after")
    with worker_process(settings, program=FAULTY, fault=f"kill {side} {point}") as doomed:
        assert doomed.wait(DEADLINE_S) == -signal.SIGKILL
        with worker_process(settings):
            eventually(lambda: rows.waiting() == 0)
            client = services.lanes.client
            eventually(lambda: client.zcard(f"rq:failed:user:{user_id}") == 1 and client.zcard("lanes:in") == 0)
    assert rows.states(user_id) == ["dead", "processed"]
    assert rows.texts(user_id) == ["after"]
    assert rows.attempts_max() == 3


def _wait_until_frozen(frozen: Child) -> None:
    """Wait until the worker has stopped itself and another may lease its lane."""
    eventually(lambda: os.waitid(os.P_PID, frozen.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG))


def _without_fence_checks(text: str) -> str:
    mutant = text.replace("is_fenced(v_user.fence, v_fence)", "false")
    assert mutant != text
    return mutant


@pytest.mark.slow
@pytest.mark.parametrize("is_fenced", [True, False], ids=["fence on", "fence off"])
def test_a_holder_frozen_before_begin_finds_its_lane_fenced(
    rows: Rows, is_fenced: bool, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": 1})
    gate, log = tmp_path / "gate", tmp_path / "runs"
    user_id = accept("alice", "m1").user_id
    accept("alice", f"wait {gate}")
    if not is_fenced:
        services.database.rows(_without_fence_checks(shipped_code()["functions/begin_turn"]))
    try:
        fault = "stop before begin_turns 1"
        with worker_process(
            settings, program=FAULTY, fault=fault, stall_limit_s=600, bot_log=log, log=tmp_path / "worker.log"
        ) as frozen:
            _wait_until_frozen(frozen)
            with worker_process(settings, bot_log=log):
                eventually(lambda: len(_runs(log)) == 2)  # m1 committed, m2 in the handler
                frozen.send_signal(signal.SIGCONT)
                if is_fenced:
                    eventually(lambda: "begin_fenced" in (tmp_path / "worker.log").read_text())
                    assert len(_runs(log)) == 2
                else:
                    eventually(lambda: len(_runs(log)) == 3)  # it takes m2 as well: the check can fail
                gate.touch()
                eventually(lambda: rows.waiting() == 0)
    finally:
        services.database.rows(shipped_code()["functions/begin_turn"])
    assert [reply.turn_seq for reply in rows.replies(user_id)] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after handler 1", "before handler 1"])
def test_a_holder_frozen_around_its_handler_leaves_one_effect(
    rows: Rows, point: str, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": 1})
    user_id = accept("alice", "m1").user_id
    accept("alice", "m2")
    log = tmp_path / "worker.log"
    with worker_process(settings, program=FAULTY, fault=f"stop {point}", stall_limit_s=600, log=log) as frozen:
        _wait_until_frozen(frozen)
        with worker_process(settings):
            eventually(lambda: rows.waiting() == 0)
            frozen.send_signal(signal.SIGCONT)
            eventually(lambda: '"outcome": "already"' in log.read_text() or "turn_dropped" in log.read_text())
    assert rows.texts(user_id) == ["m1", "m2"]


@pytest.mark.slow
def test_a_holder_frozen_over_its_messages_burial_and_redrive_writes_nothing(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": 1, "attempts_max": 1})
    message = accept("alice", "raise-until 0")
    log = tmp_path / "worker.log"
    with worker_process(
        settings, program=FAULTY, fault="stop before settle_turns 1", stall_limit_s=600, log=log
    ) as frozen:
        _wait_until_frozen(frozen)
        with worker_process(settings, handler="tests.bots:refuse"):
            eventually(lambda: rows.waiting() == 0)
        assert rows.states(message.user_id) == ["dead"]
        rows.redrive(message.message_id)
        frozen.send_signal(signal.SIGCONT)
        eventually(lambda: '"outcome": "fenced"' in log.read_text() or "turn_dropped" in log.read_text())
        assert rows.states(message.user_id) == ["received"]
        assert rows.replies(message.user_id) == []
    with worker_process(settings):
        eventually(lambda: rows.waiting() == 0)
    assert len(rows.replies(message.user_id)) == 1


def test_a_fenced_commit_begins_nothing(rows: Rows, services: Services, settings: Settings, accept: Accept) -> None:
    user_id = accept("alice", "m1").user_id
    accept("alice", "m2")
    records = Records(settings, services.database, Event())
    lease = Lease(user_id=user_id, token="a:41", fence=41, taken_over=False)
    begun = loops.run(records.begin(lease, None, is_first=True))
    rows.set_fence(user_id, 42)
    assert begun.turn is not None
    settled = loops.run(records.commit(lease, begun.turn, {}, Event(), goes_on=True))
    assert (settled.outcome, settled.next) == (SettleOutcome.FENCED, None)
    rows.set_fence(user_id, 41)
    settled = loops.run(records.commit(lease, begun.turn, {}, Event(), goes_on=True))
    assert settled.outcome is SettleOutcome.COMMITTED
    assert settled.next is not None
    assert settled.next.turn is not None
    assert settled.next.turn.message.seq == 2


def test_a_takeover_whose_answer_was_lost_counts_one_death(services: Services, accept: Accept) -> None:
    by_hand = ByHand(services.database, user_id=accept("alice", "m1").user_id)
    for _ in range(2):
        assert by_hand.begin(fence=7, taken_over=True).deaths == 1
    assert by_hand.begin(fence=8, taken_over=True).deaths == 2
