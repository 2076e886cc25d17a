"""One drain of one contestant: accept all messages, then process them with processes started as a user starts them."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from bench import checking
from bench.costs import Costs, statements
from bench.errors import BenchError
from bench.measuring import Figures
from bench.peers import Contestant
from bench.plan import Plan
from bench.stack import STOP_S, Stack, fresh
from bench.workload import Workload
from onelane.dev.embedded.child import Child, stop_all

POLL_S = 0.1
PATIENCE_S = 90.0
START_S = 30.0
INSTANT_S = 0.01
"""Less than this means that accepting is part of the run itself."""
TRIAL = 0.5
"""The part of a workload that is used to find the best number of processes."""


def drain(contestant: Contestant, workload: Workload, size: int) -> Figures:
    """Measure one drain, from the first commit to the last. Raise BenchError when ours loses a message or its order."""
    with fresh() as servers:
        began = time.monotonic()
        contestant.accept(servers, workload)
        accepted_s = time.monotonic() - began
        statements_before = statements(servers)
        commands = contestant.commands(servers, workload, size)
        children = [servers.start(f"worker-{nr}", argv, may_end=True) for nr, argv in enumerate(commands)]
        costs = _watch(servers, children, workload.messages)
        stop_all(children, STOP_S)
        return {
            "messages_per_s": round(checking.messages_per_s(servers), 1),
            "accepted_per_s": round(workload.messages / accepted_s, 1) if accepted_s > INSTANT_S else None,
            "who": contestant.name,
            "with": with_unit(contestant, size),
            "messages": workload.messages,
            **costs,
            "statements": round((statements(servers) - statements_before) / workload.messages, 2),
            **judged(servers, contestant.name, workload),
        }


def judged(servers: Stack, name: str, workload: Workload) -> Figures:
    """Judge a run that is over. Raise BenchError when ours broke a promise, or when anybody did nothing."""
    verdict = checking.judge(servers, name, workload.sent())
    lost = checking.lost(servers, workload.messages)
    if lost == workload.messages:
        raise BenchError(f"{name} processed nothing")
    return {"lost": lost, "users_out_of_order": checking.users_out_of_order(servers), "verdict": verdict}


def drains(plan: Plan, contestants: Sequence[Contestant], workload: Workload) -> dict[str, Callable[[], Figures]]:
    """List the drains of each contestant, by its name and size."""
    return {
        f"{one.name}, {with_unit(one, size)}": partial(drain, one, workload.part(one.share), size)
        for one in contestants
        for size in sizes(plan, one, workload)
    }


def with_unit(contestant: Contestant, size: int) -> str:
    """Format a size."""
    plural = "" if size == 1 else "es" if contestant.unit.endswith("s") else "s"
    return f"{size} {contestant.unit}{plural}"


def sizes(plan: Plan, contestant: Contestant, workload: Workload) -> Sequence[int]:
    """Choose the sizes to measure; of a contestant that is tuned, the one that was fastest in a smaller drain."""
    if plan.is_quick:
        return contestant.sizes[:1]
    if not contestant.is_tuned:
        return contestant.sizes
    plan.report(f"  {contestant.name}: trying {contestant.sizes}")
    trial = workload.part(contestant.share * TRIAL)
    return [max(contestant.sizes, key=lambda size: drain(contestant, trial, size)["messages_per_s"])]


def _watch(servers: Stack, children: Sequence[Child], messages: int) -> dict[str, float]:
    """Wait for the end; return what a message cost between the first reading of commits and the last.

    A process may end when all is done. Messages that are not processed in time count as lost.
    """
    ends = time.monotonic() + PATIENCE_S
    servers.wait_for(lambda: checking.processed(servers) or _have_ended(children), "the first commit", START_S)
    first = last = Costs.now(servers, {"worker": children}, checking.processed(servers))
    while time.monotonic() < ends and not (last.processed >= messages or _have_ended(children)):
        time.sleep(POLL_S)
        if any(child.is_running for child in children):
            last = Costs.now(servers, {"worker": children}, checking.processed(servers))
    return last.per_message_since(first)


def _have_ended(children: Sequence[Child]) -> bool:
    return not any(child.is_running for child in children)
