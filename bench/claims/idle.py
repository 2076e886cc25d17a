"""Idle: what a worker and a web cost while nobody writes."""

import time
from functools import partial
from itertools import takewhile
from threading import Timer

from bench import checking
from bench.costs import cpu_s, transactions
from bench.measuring import OURS, Figures, Rounds, alternate
from bench.peers import onelane
from bench.plan import Plan
from bench.result import Goal, Result
from bench.stack import Stack, fresh
from bench.workload import Workload
from onelane.dev.embedded.child import Child
from onelane.dev.embedded.redis import free_port

NAME = "idle"
TITLE = "Idle: what a worker and a web cost while nobody writes"
COLUMNS = [
    *("who", "worker CPU %", "web CPU %", "Redis CPU %", "Postgres CPU %"),
    *("Redis commands/s", "in scripts/s", "transactions/min"),
]
WORKER, BOTH = f"{OURS} worker", f"{OURS} worker and web"
CPU_MAX_PCT = 0.5
COMMANDS_MAX = 3.0
SETTLES_S = 5.0
OVER = "the minute is over"
START_S = 30.0
WRITTEN = Workload(1, 1)
OURS_ALONE = {f"cmdstat_{name}" for name in ("info", "echo", "monitor", "auth")}
NOTES = [
    "With their defaults, after one message was answered. CPU is that of each process family, of one core.",
    "Redis commands are those that clients send, which is what a hosted Redis bills; in scripts: what these call.",
]


def measure(plan: Plan) -> Result:
    """Look at them for a minute."""
    seconds = plan.size(60.0, 3.0)
    rounds = alternate(plan, {WORKER: partial(_idle, seconds, False), BOTH: partial(_idle, seconds, True)})
    goals = [
        Goal.at_most("CPU of an idle worker", CPU_MAX_PCT, rounds.values(WORKER, "worker_pct"), " %"),
        Goal.at_most("Redis commands of an idle worker, a second", COMMANDS_MAX, rounds.values(WORKER, "commands")),
        Goal.at_most("CPU of an idle web", CPU_MAX_PCT, rounds.values(BOTH, "web_pct"), " %"),
        Goal.at_most("Redis commands of both, a second", COMMANDS_MAX, rounds.values(BOTH, "commands")),
    ]
    title = f"{TITLE}, for {seconds:.0f} s"
    return Result.of(plan, NAME, title, rounds, columns=COLUMNS, row=_row, goals=goals, notes=NOTES)


def _idle(seconds: float, with_web: bool) -> Figures:
    with fresh() as stack:
        families = {"worker": [stack.start_worker()], "web": [], "redis": [], "postgres": []}
        if with_web:
            port = free_port()
            families["web"].append(stack.start_web(port))
            stack.await_web(port)
        onelane.accept(stack, WRITTEN.deliveries())
        stack.wait_for(lambda: checking.processed(stack), "the first reply", START_S)
        time.sleep(SETTLES_S)
        before = _totals(stack, families)
        sent = _sent(stack, seconds)
        used = {name: total - before[name] for name, total in _totals(stack, families).items()}
        verdict = checking.judge(stack, OURS, WRITTEN.sent())
    return {
        **{f"{family}_pct": round(100 * used[family] / used["seconds"], 3) for family in families},
        "commands": round(sent / used["seconds"], 2),
        "in_scripts": round((used["commands"] - sent) / used["seconds"], 2),
        "transactions_per_min": round(60 * used["transactions"] / used["seconds"], 1),
        "verdict": verdict,
    }


def _sent(stack: Stack, seconds: float) -> int:
    """Count what clients send to Redis, for so long; not what scripts call."""
    over = Timer(seconds, lambda: stack.redis.echo(OVER))
    with stack.redis.monitor() as monitor:
        over.start()
        commands = iter(monitor.next_command, None)
        before = takewhile(lambda one: OVER not in one["command"], commands)
        return sum(one["client_type"] != "lua" for one in before)


def _totals(stack: Stack, families: dict[str, list[Child]]) -> dict[str, float]:
    """Read the CPU time of each family, and what the servers have counted, but for these readings."""
    servers = {"redis": [stack.redis_server.pid], "postgres": [stack.postgres.pid]}
    return {
        "seconds": time.monotonic(),
        **{name: cpu_s([*(one.pid for one in some), *servers.get(name, [])]) for name, some in families.items()},
        "commands": sum(
            one["calls"] for name, one in stack.redis.info("commandstats").items() if name not in OURS_ALONE
        ),
        "transactions": transactions(stack),
    }


def _row(rounds: Rounds, name: str) -> list[str]:
    cpu = [f"{rounds.median(name, f'{family}_pct'):.2f}" for family in ("worker", "web", "redis", "postgres")]
    if name == WORKER:
        cpu[1] = ""
    return [
        name,
        *cpu,
        *(f"{rounds.median(name, figure):.1f}" for figure in ("commands", "in_scripts", "transactions_per_min")),
    ]
