"""Slow handlers: how many turns of 2 s one worker process holds at once, in how much memory."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bench.measuring import OURS, Figures, Rounds, alternate
from bench.peers.onelane import Onelane
from bench.peers.rq_workers import FORKING, SIMPLE
from bench.plan import Plan
from bench.result import Goal, Result
from bench.waiting import Slots, wait_out
from bench.workload import Workload

NAME = "slow"
TITLE = "Slow handlers: turns that wait 2 s, in one worker process"
COLUMNS = ["who", "turns at once", "messages/s", "ours ÷ it", "memory MB", "Postgres connections", "leases lost"]
WAIT_S = 2.0
SLOTS = 200
CONNECTIONS_MAX = 8
MEMORY_MAX_MB = 512
NOTES = [
    "Ours has WORKER_SLOTS=200 and DB_POOL_MAX=8; memory is that of the whole process family, shared pages once.",
    "RQ runs one job at a time in a process, by its design. pgbench has no handler.",
]


def measure(plan: Plan) -> Result:
    """Give every slot two messages or more; RQ gets five messages in all, which takes it 10 s."""
    ours = Slots(
        Onelane(),
        plan.size(Workload(400, 800), Workload(200, 200)),
        WAIT_S,
        environment={"WORKER_SLOTS": SLOTS, "DB_POOL_MAX": CONNECTIONS_MAX},
    )
    runs: dict[str, Callable[[], Figures]] = {OURS: partial(wait_out, ours)}
    for peer in (FORKING, SIMPLE):
        if plan.wants(peer.name):
            few = replace(ours, contestant=peer, workload=plan.size(Workload(5, 5), Workload(2, 2)))
            runs[peer.name] = partial(wait_out, few)
    rounds = alternate(plan, runs)
    return Result.of(
        plan,
        NAME,
        TITLE,
        rounds,
        columns=COLUMNS,
        row=_row,
        goals=[
            Goal.at_least("turns at once", SLOTS, rounds.values(OURS, "at_once")),
            Goal.at_most("memory", MEMORY_MAX_MB, rounds.worst(OURS, "memory_mb"), " MB"),
            Goal.at_most("Postgres connections", CONNECTIONS_MAX, rounds.worst(OURS, "connections")),
            Goal.at_most("leases lost", 0, rounds.worst(OURS, "leases_lost")),
        ],
        notes=NOTES,
    )


def _row(rounds: Rounds, name: str) -> list[str]:
    return [
        name,
        f"{rounds.median(name, 'at_once'):.0f}",
        f"{rounds.median(name, 'messages_per_s'):.1f}",
        "" if name == OURS else f"{rounds.ratio(OURS, name, 'messages_per_s'):.0f}",
        f"{rounds.worst(name, 'memory_mb'):.0f}",
        f"{rounds.worst(name, 'connections'):.0f}",
        f"{rounds.worst(name, 'leases_lost'):.0f}" if name == OURS else "",
    ]
