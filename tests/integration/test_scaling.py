"""Worker processes come and go under load; nothing is lost, out of order, or handled twice at once."""

import signal
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.embedded.child import Child
from onelane.model import Delivery, user_id_of
from tests.conftest import eventually
from tests.processes import worker_process
from tests.rows import Rows

Run = tuple[float, float, int]
"""Began, ended, seq."""

USERS = 300
MESSAGES = 5_000


def _send(services: Services, first: int, last: int) -> None:
    """Accept messages first…last, spread over the users, in batches as providers send them."""
    for start in range(first, last, 50):
        numbers = range(start, min(start + 50, last))
        services.intake.accept(
            "demo", [Delivery(sender=f"user {nr % USERS}", external_id=f"m{nr}", text=str(nr)) for nr in numbers]
        )


def _overlaps(log: Path) -> list[tuple[Run, Run]]:
    """List pairs of turns of one user of which the second began before the first ended."""
    turns: dict[str, list[Run]] = {}
    for line in log.read_text().splitlines():
        sender, seq, began, ended = line.rsplit(" ", 3)
        turns.setdefault(sender, []).append((float(began), float(ended), int(seq)))
    return [(one, two) for runs in turns.values() for one, two in pairwise(sorted(runs)) if two[0] < one[1]]


def test_one_to_four_to_one_workers_keep_every_message_in_order_and_alone(
    rows: Rows, services: Services, settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lock_ttl_s": 5, "shutdown_grace_s": 5})
    log = tmp_path / "runs"

    def start(stack: ExitStack) -> Child:
        return stack.enter_context(worker_process(settings, handler="tests.bots:handle_traced", bot_log=log))

    with ExitStack() as stack:
        workers = [start(stack)]
        _send(services, 0, MESSAGES // 3)
        workers += [start(stack) for _ in range(3)]
        _send(services, MESSAGES // 3, 2 * MESSAGES // 3)
        eventually(lambda: rows.count("processed") > MESSAGES // 3, within_s=60)
        for worker in workers[:3]:
            worker.send_signal(signal.SIGTERM)
        _send(services, 2 * MESSAGES // 3, MESSAGES)
        assert [worker.wait(15) for worker in workers[:3]] == [0, 0, 0]
        eventually(lambda: rows.count("processed") == MESSAGES, within_s=60)

    assert rows.answered() == MESSAGES
    for nr in range(USERS):
        mine = [int(text) for text in rows.texts(user_id_of("demo", f"user {nr}"))]
        assert mine == list(range(nr, MESSAGES, USERS))
    assert rows.out_of_order() == []
    assert rows.sessions_made() == USERS
    assert _overlaps(log) == []
