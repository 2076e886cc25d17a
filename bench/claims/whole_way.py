"""The whole way: messages are accepted and worked off at the same time, as fast as both go on two cores."""

from collections.abc import Callable, Iterator
from functools import partial

from bench.checkout import Checkout
from bench.draining import sizes
from bench.flowing import CLIENTS, WAITING_MAX, Flow, flow
from bench.measuring import OURS, Figures, Rounds, alternate
from bench.peers import Contestant, pgbench
from bench.peers.earlier import Earlier
from bench.peers.onelane import Onelane
from bench.peers.rq_workers import FORKING, SIMPLE
from bench.plan import Plan
from bench.result import FLOOR, Goal, Result
from bench.workload import Workload
from onelane.dev.stack import WEB

NAME = "whole_way"
TITLE = "The whole way: messages a second, from the first accepted to the last reply committed"
FIGURE = "messages_per_s"
KINDS = ("client", "web", "worker", "postgres", "redis")
COLUMNS = [
    *("who", "messages", "messages/s", "ours ÷ it", "CPU ms", "client", "web", "worker", "Postgres", "Redis"),
    *("p50 ms", "p99 ms", "order", "lost"),
]
HTTP = f"{OURS} over signed HTTP"
GOALS = (
    (pgbench.WHOLE_WAY.name, 2.0),
    (f"{pgbench.WHOLE_WAY.name}{FLOOR}", 1.3),
    ("earlier version", 2.0),
    (FORKING.name, 10.0),
)
CPU_MAX_MS = 0.8
POSTGRES_MAX_MS, POSTGRES_FLOOR_MS = 0.35, 0.45
NOTES = [
    "One worker process with its defaults; both cores are shared by everything that takes part, clients too.",
    f"{CLIENTS} clients, each with users of its own, send one message after the other, and pause while {WAITING_MAX}",
    "wait for their turn: that bound makes the times from accepted to committed what they are.",
    "Without HTTP the clients are threads of the process in which Intake accepts.",
    "pgbench makes the same SQL calls one by one, with the same messages and hints; the fastest number of clients.",
    "CPU ms a message, of each kind of process. Slow peers get a part of the users, each of whom writes as much.",
]


def measure(plan: Plan) -> Result:
    """Send 8,000 messages of 500 users."""
    workload = plan.size(Workload(500, 8_000), Workload(50, 400))
    runs: dict[str, Callable[[], Figures]] = {
        one.name: partial(flow, one, _part(workload, one.contestant)) for one in _flows(plan, workload)
    }
    rounds = alternate(plan, runs)
    return Result.of(
        plan,
        NAME,
        f"{TITLE}; {workload}",
        rounds,
        columns=COLUMNS,
        row=_row,
        goals=goals(rounds),
        notes=NOTES,
    )


def _flows(plan: Plan, workload: Workload) -> Iterator[Flow]:
    yield Flow(OURS, Onelane(), offers="onelane")
    yield Flow(HTTP, Onelane(), offers="http", web=WEB)
    if plan.against:
        earlier = Earlier(Checkout.at(plan.against))
        yield Flow(earlier.name, earlier, offers=earlier.checkout.package, checkout=earlier.checkout)
    if plan.wants(pgbench.WHOLE_WAY.name):
        [clients] = sizes(plan, pgbench.WHOLE_WAY, workload)
        yield Flow(pgbench.WHOLE_WAY.name, pgbench.WHOLE_WAY, size=clients)
    for peer in (FORKING, SIMPLE):
        if plan.wants(peer.name):
            yield Flow(peer.name, peer, offers="rq")


def _part(workload: Workload, contestant: Contestant) -> Workload:
    """Give a slow peer half of the users that it gets in a drain: there is more to do for each message."""
    return workload if contestant.share == 1 else workload.part(contestant.share / 2)


def goals(rounds: Rounds) -> list[Goal]:
    """Compare with the peers that took part; a floor is what must hold, a goal what is to be reached."""
    postgres_ms, cpu_ms = (rounds.values(OURS, figure) for figure in ("postgres_cpu_ms", "cpu_ms"))
    return [
        *(Goal.at_least(f"ours ÷ {peer}", least, _ours_to(rounds, peer.removesuffix(FLOOR))) for peer, least in GOALS),
        Goal.at_most("CPU of all processes for a message", CPU_MAX_MS, cpu_ms, " ms"),
        Goal.at_most("CPU of Postgres for a message", POSTGRES_MAX_MS, postgres_ms, " ms"),
        Goal.at_most(f"CPU of Postgres for a message{FLOOR}", POSTGRES_FLOOR_MS, postgres_ms, " ms"),
    ]


def _ours_to(rounds: Rounds, peer: str) -> list[float] | None:
    """Return ours ÷ the peer's whose name begins so; None when it took no part."""
    names = [name for name in rounds.found if name.startswith(peer)]
    return rounds.ratios(OURS, names[0], FIGURE) if names else None


def _row(rounds: Rounds, name: str) -> list[str]:
    one = rounds.found[name][0]
    disordered = int(rounds.worst(name, "users_out_of_order"))
    return [
        name,
        f"{one['messages']:,}",
        f"{rounds.median(name, FIGURE):,.0f}",
        "" if name == OURS else f"{rounds.ratio(OURS, name, FIGURE):.2f}",
        f"{rounds.median(name, 'cpu_ms'):.2f}",
        *(f"{rounds.median(name, f'{kind}_cpu_ms'):.2f}" if f"{kind}_cpu_ms" in one else "" for kind in KINDS),
        *(f"{rounds.median(name, part):,.0f}" for part in ("p50_ms", "p99_ms")),
        f"broken, users: {disordered}" if disordered else "kept",
        f"{rounds.worst(name, 'lost'):.0f}",
    ]
