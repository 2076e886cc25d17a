"""Cost: CPU, commands to Redis and statements to Postgres for one message."""

from collections.abc import Callable
from functools import partial

from bench.draining import drain
from bench.measuring import OURS, Figures, Rounds, alternate
from bench.peers import Contestant, pgbench
from bench.peers.onelane import Onelane
from bench.peers.rq_workers import FORKING, LIMITED, SIMPLE
from bench.plan import Plan
from bench.result import Result
from bench.workload import Workload

NAME = "cost"
TITLE = "Cost of a message, from accepted to reply committed, with one process"
CPU = ("worker_cpu_ms", "postgres_cpu_ms", "redis_cpu_ms")
COLUMNS = ["who", "worker", "Postgres", "Redis", "CPU ms", "it ÷ ours", "Redis commands", "scripts", "statements"]
NOTES = [
    "CPU ms of the worker's processes, of PostgreSQL's and of Redis', between the first commit and the last.",
    "Redis counts the commands inside scripts too; what a client sends of ours is nearly only scripts.",
    "Statements are transactions of the database, each call being one; a forked work-horse's connection makes its own.",
]


def measure(plan: Plan) -> Result:
    """Drain with one process each."""
    workload = plan.size(Workload(200, 1_600), Workload(40, 200))
    peers: list[Contestant] = [pgbench.TURNS, FORKING, SIMPLE, LIMITED]
    contestants: list[Contestant] = [Onelane(), *(peer for peer in peers if plan.wants(peer.name))]
    runs: dict[str, Callable[[], Figures]] = {
        one.name: partial(_run, one, workload.part(one.share)) for one in contestants
    }
    rounds = alternate(plan, runs)
    return Result.of(plan, NAME, f"{TITLE}; {workload}", rounds, columns=COLUMNS, row=_row, notes=NOTES)


def _run(contestant: Contestant, workload: Workload) -> Figures:
    figures = drain(contestant, workload, contestant.sizes[0])
    return {**figures, "cpu_ms": sum(figures[part] for part in CPU)}


def _row(rounds: Rounds, name: str) -> list[str]:
    return [
        name,
        *(f"{rounds.median(name, part):.2f}" for part in (*CPU, "cpu_ms")),
        "" if name == OURS else f"{rounds.ratio(name, OURS, 'cpu_ms'):.2f}",
        *(f"{rounds.median(name, figure):.1f}" for figure in ("redis_commands", "redis_scripts", "statements")),
    ]
