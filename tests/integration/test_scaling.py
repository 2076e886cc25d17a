"""Worker processes come and go under load; nothing is lost, out of order, or handled twice at once."""

import signal
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.embedded.child import Child
from onelane.operations.snapshot import Survey
from tests.conftest import DEADLINE_S, accept_all, eventually
from tests.processes import worker_process
from tests.rows import Rows

Run = tuple[float, float, int]
"""Began, ended, seq."""

USERS = 300


def _send(services: Services, first: int, last: int) -> None:
    """Accept messages first…last, spread over the users, in batches as providers send them."""
    accept_all(services, [(f"user {nr % USERS}", str(nr)) for nr in range(first, last)])


def _overlaps(log: Path) -> list[tuple[Run, Run]]:
    """List pairs of turns of one user of which the second began before the first ended."""
    turns: dict[str, list[Run]] = {}
    for line in log.read_text().splitlines():
        sender, seq, began, ended = line.rsplit(" ", 3)
        turns.setdefault(sender, []).append((float(began), float(ended), int(seq)))
    return [(one, two) for runs in turns.values() for one, two in pairwise(sorted(runs)) if two[0] < one[1]]


@pytest.mark.slow
@pytest.mark.parametrize("messages", [300, 5_000])
def test_one_to_four_to_one_workers_keep_every_message_in_order_and_alone(
    rows: Rows, services: Services, settings: Settings, messages: int, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": 5, "shutdown_grace_s": 5})
    log, survey = tmp_path / "runs", Survey(services.lanes)

    def start(stack: ExitStack) -> Child:
        return stack.enter_context(worker_process(settings, handler="tests.bots:handle_traced", bot_log=log))

    with ExitStack() as stack:
        workers = [start(stack)]
        _send(services, 0, messages // 3)
        workers += [start(stack) for _ in range(3)]
        _send(services, messages // 3, 2 * messages // 3)
        eventually(lambda: rows.count("processed") > messages // 3)
        eventually(lambda: survey.snapshot().workers_alive == len(workers), every_s=0.1)
        for worker in workers[:3]:
            worker.send_signal(signal.SIGTERM)
        _send(services, 2 * messages // 3, messages)
        assert [worker.wait(DEADLINE_S) for worker in workers[:3]] == [0, 0, 0]
        eventually(lambda: rows.count("processed") == messages)

    assert rows.answered() == messages
    for nr in range(USERS):
        mine = [int(text) for text in rows.texts(rows.user_of("demo", f"user {nr}"))]
        assert mine == list(range(nr, messages, USERS))
    assert rows.out_of_order() == []
    assert rows.sessions_made() == USERS
    assert _overlaps(log) == []
