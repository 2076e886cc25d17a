"""Worker processes come and go under load; nothing is lost, out of order, or handled twice at once."""

import signal
from contextlib import ExitStack
from itertools import pairwise

from onelane.model import Delivery, user_id_of
from tests.conftest import eventually
from tests.processes import worker_process

USERS = 300
MESSAGES = 5_000


def _send(services, first, last):
    """Accept messages first…last, spread over the users, in batches as providers send them."""
    for start in range(first, last, 50):
        numbers = range(start, min(start + 50, last))
        services.intake.accept(
            "demo", [Delivery(sender=f"user {nr % USERS}", external_id=f"m{nr}", text=str(nr)) for nr in numbers]
        )


def _processed(services):
    return services.database.row("SELECT count(*) AS n FROM messages WHERE direction = 'in' AND state = 'processed'").n


def _overlaps(log):
    """List pairs of turns of one user of which the second began before the first ended."""
    turns = {}
    for line in log.read_text().splitlines():
        sender, seq, began, ended = line.rsplit(" ", 3)
        turns.setdefault(sender, []).append((float(began), float(ended), int(seq)))
    return [(one, two) for runs in turns.values() for one, two in pairwise(sorted(runs)) if two[0] < one[1]]


def test_one_to_four_to_one_workers_keep_every_message_in_order_and_alone(services, settings, tmp_path):
    settings = settings.model_copy(update={"lock_ttl_s": 5, "shutdown_grace_s": 5})
    log = tmp_path / "runs"

    def start(stack):
        return stack.enter_context(worker_process(settings, handler="tests.bots:handle_traced", bot_log=log))

    with ExitStack() as stack:
        workers = [start(stack)]
        _send(services, 0, MESSAGES // 3)
        workers += [start(stack) for _ in range(3)]
        _send(services, MESSAGES // 3, 2 * MESSAGES // 3)
        eventually(lambda: _processed(services) > MESSAGES // 3, within_s=60)
        for worker in workers[:3]:
            worker.send_signal(signal.SIGTERM)
        _send(services, 2 * MESSAGES // 3, MESSAGES)
        assert [worker.wait(15) for worker in workers[:3]] == [0, 0, 0]
        eventually(lambda: _processed(services) == MESSAGES, within_s=60)

    rows = services.database.rows(
        "SELECT user_id, text, turn_seq FROM messages WHERE direction = 'out' ORDER BY user_id, turn_seq"
    )
    assert len(rows) == MESSAGES
    for nr in range(USERS):
        mine = [int(row.text) for row in rows if row.user_id == user_id_of("demo", f"user {nr}")]
        assert mine == list(range(nr, MESSAGES, USERS))
    out_of_order = services.database.row(
        "SELECT count(*) AS n FROM (SELECT seq, lag(seq) OVER (PARTITION BY user_id ORDER BY processed_at) AS before"
        " FROM messages WHERE direction = 'in') AS t WHERE before > seq"
    )
    assert out_of_order.n == 0
    assert services.database.row("SELECT count(DISTINCT session_id) AS n FROM messages").n == USERS
    assert _overlaps(log) == []
