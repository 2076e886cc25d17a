"""Drain: how fast a backlog is processed, and whether every user's order is kept."""

from collections.abc import Sequence

from bench.draining import drains
from bench.measuring import OURS, Rounds, alternate
from bench.peers import Contestant, pgbench
from bench.peers.onelane import Onelane
from bench.peers.rq_workers import FORKING, LIMITED, SIMPLE
from bench.plan import Plan
from bench.result import Goal, Result
from bench.workload import Workload

NAME = "drain"
TITLE = "Drain: messages a second, from accepted to reply committed"
FIGURE = "messages_per_s"
COLUMNS = ["who", "with", "messages", "messages/s", "our best ÷ it", "accepted/s", "order", "lost"]
GOALS = {FORKING.name: 20.0, SIMPLE.name: 5.0, pgbench.TURNS.name: 2.0}
NOTES = [
    "Of pgbench, the fastest of three numbers of clients.",
    "Slow peers get a part of the users, each of whom writes as much.",
    "Our messages are accepted beforehand, as are those of RQ and of `begin + commit`.",
]


def measure(plan: Plan) -> Result:
    """Drain 4,000 messages of 500 users, who write in turns."""
    workload = plan.size(Workload(500, 4_000), Workload(40, 200))
    contestants: list[Contestant] = [pgbench.WHOLE_WAY, pgbench.TURNS, FORKING, SIMPLE, LIMITED]
    rounds = drained(plan, workload, contestants)
    return Result.of(
        plan,
        NAME,
        f"{TITLE}; {workload}",
        rounds,
        columns=COLUMNS,
        row=row,
        goals=goals(rounds),
        notes=NOTES,
    )


def drained(plan: Plan, workload: Workload, peers: Sequence[Contestant]) -> Rounds:
    """Drain in turns: ours, then the peers."""
    contestants: list[Contestant] = [Onelane(), *(peer for peer in peers if plan.wants(peer.name))]
    return alternate(plan, drains(plan, contestants, workload))


def goals(rounds: Rounds) -> list[Goal]:
    """Compare with what was to be reached: one process with one process, our best with all others."""
    found = []
    for peer, least in GOALS.items():
        for theirs in _of(rounds, peer):
            ours = f"{OURS}, 1 process" if theirs.endswith(", 1 process") else _best(rounds, OURS)
            found.append(Goal.at_least(f"{ours} ÷ {theirs}", least, rounds.ratios(ours, theirs, FIGURE)))
        if not _of(rounds, peer):
            found.append(Goal.at_least(f"{OURS} ÷ {peer}", least, None))
    return found


def row(rounds: Rounds, name: str) -> list[str]:
    """Return a contestant's row of the table."""
    one = rounds.found[name][0]
    disordered = int(rounds.worst(name, "users_out_of_order"))
    return [
        one["who"],
        one["with"],
        f"{one['messages']:,}",
        f"{rounds.median(name, FIGURE):,.0f}",
        "" if one["who"] == OURS else f"{rounds.ratio(_best(rounds, OURS), name, FIGURE):.2f}",
        f"{rounds.median(name, 'accepted_per_s'):,.0f}" if one["accepted_per_s"] else "in it",
        f"broken, users: {disordered}" if disordered else "kept",
        f"{rounds.worst(name, 'lost'):.0f}",
    ]


def _best(rounds: Rounds, who: str) -> str:
    """Name the fastest of a contestant's sizes."""
    return max(_of(rounds, who), key=lambda name: rounds.median(name, FIGURE))


def _of(rounds: Rounds, who: str) -> list[str]:
    return [name for name, found in rounds.found.items() if found[0]["who"] == who]
