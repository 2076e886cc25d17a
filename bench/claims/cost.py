"""Cost: CPU, commands to Redis, statements and WAL of Postgres for one message, and the price of a million."""

from collections.abc import Callable
from functools import partial

from bench.draining import drain
from bench.flowing import Flow, flow
from bench.measuring import OURS, Figures, Rounds, alternate
from bench.peers import Contestant, pgbench
from bench.peers.onelane import Onelane
from bench.peers.rq_workers import FORKING, LIMITED, SIMPLE
from bench.plan import Plan
from bench.result import Goal, Result
from bench.workload import Workload
from onelane.dev.stack import WEB

NAME = "cost"
TITLE = "Cost of a message, to its reply's commit, with one worker process"
CPU = ("web_cpu_ms", "worker_cpu_ms", "postgres_cpu_ms", "redis_cpu_ms")
COUNTS = ("redis_commands", "redis_scripts", "statements")
COLUMNS = [
    *("who", "web", "worker", "Postgres", "Redis", "CPU ms", "it ÷ ours"),
    *("Redis commands", "scripts", "statements", "WAL kB"),
]
BY_HTTP = ", signed HTTP"
HTTP = f"{OURS}{BY_HTTP}"
CPU_MAX_MS = 1.5
COMMANDS_MAX = 12.0
WAL_MAX_KB = 2.2
NOTES = [
    "Signed HTTP: from the first webhook to the last commit, as in the whole way. The others: drains, from the first",
    "commit to the last, of what was accepted before. CPU ms of each kind of process, without the clients'.",
    "Redis counts the commands inside scripts too; what a client sends of ours is nearly only scripts.",
    "Statements are transactions of the database, each call being one; a forked work-horse's connection makes its own.",
]


def measure(plan: Plan) -> Result:
    """Send over HTTP, then drain, with one worker process each."""
    workload = plan.size(Workload(200, 1_600), Workload(40, 200))
    sent = plan.size(Workload(200, 4_000), Workload(40, 200))
    runs: dict[str, Callable[[], Figures]] = {HTTP: partial(_send, HTTP, Onelane(), WEB, sent)}
    if plan.wants(SIMPLE.name):
        name = f"{SIMPLE.name}{BY_HTTP}"
        runs[name] = partial(_send, name, SIMPLE, SIMPLE.web, sent.part(SIMPLE.share / 2))
    peers: list[Contestant] = [pgbench.TURNS, FORKING, SIMPLE, LIMITED]
    contestants: list[Contestant] = [Onelane(), *(peer for peer in peers if plan.wants(peer.name))]
    runs |= {one.name: partial(_drain, one, workload.part(one.share)) for one in contestants}
    rounds = alternate(plan, runs)
    title = f"{TITLE}; {sent} over HTTP, {workload} in drains"
    notes = [*NOTES, price(rounds)]
    return Result.of(plan, NAME, title, rounds, columns=COLUMNS, row=_row, goals=_goals(rounds), notes=notes)


def price(rounds: Rounds) -> str:
    """Add up what a million messages over HTTP cost."""
    cpu_hours = 1e6 * rounds.median(HTTP, "cpu_ms") / 1000 / 3600
    wal_gb = 1e6 * rounds.median(HTTP, "wal_bytes") / 1e9
    commands = rounds.median(HTTP, "redis_commands")
    return (
        f"A million messages over signed HTTP: {cpu_hours:.2f} hours of CPU, {wal_gb:.1f} GB of WAL, "
        f"{commands:.0f} million Redis commands."
    )


def _send(name: str, contestant: Contestant, web: str, workload: Workload) -> Figures:
    return flow(Flow(name, contestant, offers="http", web=web), workload)


def _drain(contestant: Contestant, workload: Workload) -> Figures:
    figures = drain(contestant, workload, contestant.sizes[0])
    return {**figures, "cpu_ms": sum(figures.get(part, 0.0) for part in CPU)}


def _goals(rounds: Rounds) -> list[Goal]:
    wal_kb = [one / 1000 for one in rounds.values(HTTP, "wal_bytes")]
    return [
        Goal.at_most("CPU of all processes over signed HTTP", CPU_MAX_MS, rounds.values(HTTP, "cpu_ms"), " ms"),
        Goal.at_most("Redis commands over signed HTTP", COMMANDS_MAX, rounds.values(HTTP, "redis_commands")),
        Goal.at_most("WAL over signed HTTP, warm", WAL_MAX_KB, wal_kb, " kB"),
    ]


def _row(rounds: Rounds, name: str) -> list[str]:
    one, ours = rounds.found[name][0], HTTP if name.endswith(BY_HTTP) else OURS
    return [
        name,
        *(f"{rounds.median(name, part):.2f}" if part in one else "" for part in CPU),
        f"{rounds.median(name, 'cpu_ms'):.2f}",
        "" if name == ours else f"{rounds.ratio(name, ours, 'cpu_ms'):.2f}",
        *(f"{rounds.median(name, figure):.1f}" for figure in COUNTS),
        f"{rounds.median(name, 'wal_bytes') / 1000:.1f}",
    ]
