"""Lanes: what a lease costs with 100,000 users waiting, compared with 100."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from uuid import uuid4

import redis
from rq import Queue

from bench.measuring import OURS, Figures, Rounds, alternate
from bench.plan import Plan
from bench.result import Goal, Result
from bench.stack import REDIS_TIMEOUT_S, fresh
from onelane.lanes.lanes import Lanes
from onelane.lanes.scripts import connect

NAME = "lanes"
TITLE = "Lanes: one lease, by the number of users who wait"
RQ = "rq worker, a queue a user"
COLUMNS = ["who", "users", "µs to get work", "÷ with the fewest", "µs to give back"]
GROWTH_MAX = 1.3
LEASE_TTL_S = 15.0
CYCLES = 300
DEQUEUES_MIN = 3
DEQUEUED_QUEUES = 30_000
"""RQ's cycles, times queues."""
NOTES = [
    "Round trips to Redis, as a worker makes them: the median of 300 (of RQ's with 1,000 queues 30, with more 3).",
    "Every user has one message waiting.",
    "RQ has no lane; the like of it is a queue for each user and a worker that listens to all of them.",
    "Its dequeue is measured with work on the very first queue, which is its best case: it names all queues each time.",
]


def measure(plan: Plan) -> Result:
    """Fill one Redis for each number of lanes, then lease from all of them in turns."""
    sizes = plan.size((100, 1_000, 10_000, 100_000), (100, 1_000))
    with ExitStack() as closing:
        runs: dict[str, Callable[[], Figures]] = {}
        for users in sizes:
            plan.report(f"  filling {users:,} lanes")
            runs[_name(OURS, users)] = partial(_lease, closing.enter_context(_lanes(users)), users)
        if plan.wants(RQ):
            client = closing.enter_context(_redis())
            runs |= {_name(RQ, users): partial(_dequeue, client, users) for users in sizes}
        rounds = alternate(plan, runs)
    few, many = (_name(OURS, users) for users in (sizes[0], sizes[-1]))
    growth = rounds.ratios(many, few, "get_us")
    return Result.of(
        plan,
        NAME,
        TITLE,
        rounds,
        columns=COLUMNS,
        row=_row,
        goals=[Goal.at_most(f"a lease with {sizes[-1]:,} lanes ÷ with {sizes[0]:,}", GROWTH_MAX, growth)],
        notes=NOTES,
    )


@contextmanager
def _redis() -> Iterator[redis.Redis]:
    with fresh() as stack:
        yield stack.redis


@contextmanager
def _lanes(users: int) -> Iterator[Lanes]:
    """Make so many users wait."""
    with fresh() as stack:
        client = connect(stack.redis_server.url, timeout_s=REDIS_TIMEOUT_S, wait_s=REDIS_TIMEOUT_S, connections_max=1)
        lanes = Lanes(client)
        lanes.enqueue_many([(uuid4(), uuid4()) for _ in range(users)])
        yield lanes
        client.close()


def _lease(lanes: Lanes, users: int) -> Figures:
    worker, lease_us, finish_us = f"bench-{uuid4()}", [], []
    for call in range(CYCLES):
        began = time.perf_counter()
        [lease] = lanes.lease(worker, call, 1, LEASE_TTL_S).leases
        leased = time.perf_counter()
        lanes.finish(lease, has_more=True)
        lease_us.append(1e6 * (leased - began))
        finish_us.append(1e6 * (time.perf_counter() - leased))
    return {"who": OURS, "users": users, "get_us": round(median(lease_us), 1), "give_us": round(median(finish_us), 1)}


def _dequeue(client: redis.Redis, users: int) -> Figures:
    queues = [Queue(f"user-{number}", connection=client) for number in range(users)]
    first, dequeue_us = queues[0], []
    first.empty()
    first.enqueue("builtins.str")
    for _ in range(max(DEQUEUES_MIN, min(CYCLES, DEQUEUED_QUEUES // users))):
        began = time.perf_counter()
        [job, _] = Queue.dequeue_any(queues, timeout=1, connection=client) or [None, None]
        dequeue_us.append(1e6 * (time.perf_counter() - began))
        first.push_job_id(job.id)
    return {"who": RQ, "users": users, "get_us": round(median(dequeue_us), 1), "give_us": None}


def _name(who: str, users: int) -> str:
    return f"{who}, {users:,}"


def _growth(rounds: Rounds, who: str, users: int) -> float:
    """Compare with the fewest users."""
    fewest = min(found[0]["users"] for found in rounds.found.values() if found[0]["who"] == who)
    return rounds.ratio(_name(who, users), _name(who, fewest), "get_us")


def _row(rounds: Rounds, name: str) -> list[str]:
    one = rounds.found[name][0]
    return [
        one["who"],
        f"{one['users']:,}",
        f"{rounds.median(name, 'get_us'):,.0f}",
        f"{_growth(rounds, one['who'], one['users']):.2f}",
        f"{rounds.median(name, 'give_us'):,.0f}" if one["give_us"] else "",
    ]
