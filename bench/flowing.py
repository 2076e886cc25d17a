"""One run of the whole way: messages are offered and accepted while workers work, from the first to the last commit."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from bench import checking, offering
from bench.checkout import HERE, ROOT, Checkout
from bench.costs import Costs, statements
from bench.draining import PATIENCE_S, START_S, judged
from bench.measuring import Figures
from bench.peers import Contestant
from bench.stack import CHANNEL, STOP_S, Stack, fresh
from bench.workload import Workload
from onelane.dev.embedded.child import Child, stop_all
from onelane.dev.embedded.redis import free_port

CLIENTS = 24
WAITING_MAX = 256
"""So much may wait for its turn: the clients pause then."""
POLL_S = 0.05
OFFER = ROOT / "bench" / "offering.py"
HAS_WORKERS = "rq:workers"
RATE = """
SELECT count(*) / extract(epoch FROM max(processed_at) - min(accepted_at))::float
  FROM messages WHERE direction = 'in' AND state = 'processed'
"""
TOOK = """
SELECT 1000 * extract(epoch FROM percentile_disc(%s) WITHIN GROUP (ORDER BY processed_at - accepted_at))::float
  FROM messages WHERE direction = 'in' AND state = 'processed'
"""


@dataclass(frozen=True)
class Flow:
    """Who takes part, with how many processes or clients. A worker that accepts by itself needs nobody who offers."""

    name: str
    contestant: Contestant
    offers: str = ""
    """A kind of `bench.offering`."""
    web: str = ""
    """What gunicorn serves, if that accepts."""
    checkout: Checkout = HERE
    size: int = 1


def flow(one: Flow, workload: Workload) -> Figures:
    """Measure one run. Raise BenchError when ours breaks a promise."""
    with fresh(one.checkout) as stack:
        before_all = statements(stack)
        processes = _prepared(stack, one, workload)
        before = Costs.now(stack, processes, 0)
        began = time.monotonic()
        if one.offers:
            (stack.folder / "go").touch()
        else:
            [command] = one.contestant.commands(stack, workload, one.size)
            processes["worker"].append(stack.start("worker", command, may_end=True))
        _await_end(stack, one, processes, workload)
        costs = Costs.now(stack, processes, checking.processed(stack)).per_message_since(before)
        seconds = time.monotonic() - began
        stop_all([child for some in processes.values() for child in some], STOP_S)
        return {
            "who": one.name,
            "messages": workload.messages,
            "messages_per_s": round(stack.value(RATE) or 0.0, 1),
            "seconds": round(seconds, 1),
            "p50_ms": round(stack.value(TOOK, 0.5) or 0.0, 1),
            "p99_ms": round(stack.value(TOOK, 0.99) or 0.0, 1),
            **costs,
            "cpu_ms": round(_all_cpu_ms(one, costs), 4),
            "statements": round((statements(stack) - before_all) / workload.messages, 2),
            **judged(stack, one.name, workload),
        }


def _all_cpu_ms(one: Flow, costs: Mapping[str, float]) -> float:
    """Add up all processes; over HTTP the clients are somebody else's."""
    foreign = "client_cpu_ms" if one.web else ""
    return sum(cost for name, cost in costs.items() if name.endswith("_cpu_ms") and name != foreign)


def _prepared(stack: Stack, one: Flow, workload: Workload) -> dict[str, list[Child]]:
    """Start everything but the offers, and wait until all is ready."""
    if not one.offers:
        return {"worker": []}
    environment = one.checkout.environment
    [command] = one.contestant.commands(stack, workload, one.size)
    processes = {"worker": [stack.start_of(one.checkout, "worker", command)]}
    if one.web:
        port = free_port()
        processes["web"] = [stack.start_web(port, one.web)]
        stack.await_web(port)
        environment = {**environment, "BENCH_PORT": str(port)}
    stack.wait_for(lambda: stack.redis.scard(HAS_WORKERS), "the worker's start", START_S)
    offer = {
        "kind": one.offers,
        "channel": CHANNEL,
        "users": workload.users,
        "each": workload.messages // workload.users,
        "clients": CLIENTS,
        "waiting_max": WAITING_MAX,
        "folder": str(stack.folder),
    }
    argv = [str(one.checkout.interpreter), "-P", str(OFFER)]
    processes["client"] = [stack.start_of(one.checkout, "client", argv, BENCH_OFFER=json.dumps(offer), **environment)]
    stack.wait_for((stack.folder / "ready").exists, "the clients' start", START_S)
    return processes


def _await_end(stack: Stack, one: Flow, processes: dict[str, list[Child]], workload: Workload) -> None:
    """Wait until all is offered, and nothing waits any more."""
    done = stack.folder / "done"

    def is_over() -> bool:
        has_ended = not any(child.is_running for child in processes["worker"])
        return (done.exists() if one.offers else has_ended) and int(stack.value(offering.WAITING)) == 0

    stack.wait_for(is_over, f"{one.name}: the last of {workload}", PATIENCE_S, POLL_S)
