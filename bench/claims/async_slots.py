"""Async slots: how many turns of one worker process wait for a model at once, in how much memory."""

from functools import partial

from bench import handlers
from bench.measuring import OURS, Rounds, alternate
from bench.peers.onelane import Onelane
from bench.plan import Plan
from bench.result import Goal, Result
from bench.waiting import Slots, wait_out
from bench.workload import Workload

NAME = "async_slots"
TITLE = "Async slots: turns of one worker process that wait for a model at once"
COLUMNS = ["who", "at once", "all in s", "all committed s", "PSS MB", "RSS MB", "Postgres connections", "leases lost"]
SYNC, ASYNC = f"{OURS}, sync handler", f"{OURS}, async handler"
CONNECTIONS_MAX = 8
MEMORY_MAX_MB = 512
NOTES = [
    "One message of each user, accepted beforehand; DB_POOL_MAX=8; WORKER_SLOTS is the number of users.",
    "All in: from the first handler's start to the last one's. All committed: from the first commit to the last.",
    "Memory is that of the worker and its helper, at its highest; what they share counts once (PSS) or twice (RSS).",
]


def measure(plan: Plan) -> Result:
    """Let 300 turns wait in threads, and 5,000 on the event loop."""
    sizes = {SYNC: plan.size((300, 4.0), (40, 2.0)), ASYNC: plan.size((5_000, 20.0), (200, 2.0))}
    runs = {
        name: partial(wait_out, _slots(slots, wait_s, handlers.ASYNC if name == ASYNC else handlers.SYNC))
        for name, (slots, wait_s) in sizes.items()
    }
    rounds = alternate(plan, runs)
    goals = []
    for name, (slots, _) in sizes.items():
        goals += [
            Goal.at_least(f"{name}: turns at once", slots, rounds.values(name, "at_once")),
            Goal.at_most(f"{name}: memory", MEMORY_MAX_MB, rounds.worst(name, "memory_mb"), " MB"),
            Goal.at_most(f"{name}: Postgres connections", CONNECTIONS_MAX, rounds.worst(name, "connections")),
            Goal.at_most(f"{name}: leases lost", 0, rounds.worst(name, "leases_lost")),
        ]
    return Result.of(plan, NAME, TITLE, rounds, columns=COLUMNS, row=_row, goals=goals, notes=NOTES)


def _slots(slots: int, wait_s: float, handler: str) -> Slots:
    environment: dict[str, object] = {"WORKER_SLOTS": slots, "DB_POOL_MAX": CONNECTIONS_MAX}
    return Slots(Onelane(), Workload(slots, slots), wait_s, environment=environment, handler=handler)


def _row(rounds: Rounds, name: str) -> list[str]:
    return [
        name,
        f"{rounds.median(name, 'at_once'):,.0f}",
        *(f"{rounds.median(name, figure):.1f}" for figure in ("all_in_s", "done_s")),
        *(f"{rounds.worst(name, figure):.0f}" for figure in ("memory_mb", "rss_mb", "connections", "leases_lost")),
    ]
