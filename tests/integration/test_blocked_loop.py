"""One async handler that blocks the event loop which all share: who pays, and how long everybody waits."""

from pathlib import Path

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from tests.conftest import Accept, eventually
from tests.processes import worker_process
from tests.rows import Rows

SLOTS = 8
BYSTANDERS = 49
TTL_S = 10


@pytest.mark.slow
def test_a_blocked_loop_is_replaced_and_only_the_messages_that_block_it_are_charged(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    """33 of 49 bystanders were dead within a minute, and the worker went on."""
    settings = settings.model_copy(
        update={"lock_ttl_s": TTL_S, "turn_timeout_s": 6, "attempts_max": 2, "loop_stall_limit_s": 1}
    )
    log = tmp_path / "worker.log"
    with worker_process(settings, f"--slots={SLOTS}", handler="tests.bots:handle_async", log=log, is_supervised=True):
        eventually(lambda: "worker_started" in log.read_text())
        never_returns, blocks_for_a_while = accept("eve", "block 600"), accept("mallory", "block 2")
        bystanders = [accept(f"user {nr}", "sleep 0.2").user_id for nr in range(BYSTANDERS)]
        eventually(lambda: all(rows.is_settled(user) for user in bystanders))
        eventually(lambda: rows.waiting() == 0)
    waits_ms = rows.waits_ms(bystanders)
    assert len(waits_ms) == BYSTANDERS
    assert [(row.attempts, row.deaths) for user in bystanders for row in rows.inbound(user)] == BYSTANDERS * [(0, 0)]
    assert waits_ms[-1] <= 3 * TTL_S * 1000
    assert rows.states(never_returns.user_id) == ["dead"]
    assert rows.states(blocks_for_a_while.user_id) == ["processed"]
    assert rows.message(blocks_for_a_while.message_id).attempts == 1
    said = log.read_text()
    assert said.count('"event": "loop_blocked"') == 2
    assert "in _block" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attempts_max", "states", "blocked"), [(2, ["processed", "processed"], 1), (1, ["processed", "dead"], 2)]
)
def test_what_blocks_the_loop_with_a_message_that_it_took_in_is_charged_with_all_of_its_batch(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    tmp_path: Path,
    attempts_max: int,
    states: list[str],
    blocked: int,
) -> None:
    """Nobody was charged: whoever wrote once more could have the worker replaced again and again."""
    settings = settings.model_copy(update={"attempts_max": attempts_max, "loop_stall_limit_s": 1})
    log = tmp_path / "worker.log"
    first, _ = accept("eve", "next"), accept("eve", "block 2")
    with worker_process(settings, handler="tests.bots:handle_async", log=log, is_supervised=True):
        eventually(lambda: rows.is_settled(first.user_id))
    assert rows.states(first.user_id) == states
    assert log.read_text().count('"event": "loop_blocked"') == blocked
    assert rows.message(first.message_id).attempts == attempts_max - 1
