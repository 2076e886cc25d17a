"""Stock RQ around the same SQL: one queue, one job a message, and one of the ways to keep a user's turns apart."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis
from rq import Queue, RateLimit

from bench.peers import rq_turns
from bench.peers.accepting import accept
from bench.stack import Stack
from bench.workload import Workload
from onelane.deliveries import Accepted, Delivery
from onelane.postgres.db import Database

QUEUE = "turns"
BATCH = 50
Enqueue = Callable[[redis.Redis, Sequence[Accepted], Sequence[Delivery]], None]


def enqueue_locked(client: redis.Redis, accepted: Sequence[Accepted], deliveries: Sequence[Delivery]) -> None:
    """Put jobs on the queue that lock their user when they run."""
    pairs = zip(accepted, deliveries, strict=True)
    jobs = [Queue.prepare_data(rq_turns.take_turn, args=_arguments(*pair)) for pair in pairs]
    Queue(QUEUE, connection=client).enqueue_many(jobs)


def enqueue_rate_limited(client: redis.Redis, accepted: Sequence[Accepted], deliveries: Sequence[Delivery]) -> None:
    """Put jobs behind RQ's own limit of one at a time for each user; it does not take them in batches."""
    queue = Queue(QUEUE, connection=client)
    for one, delivery in zip(accepted, deliveries, strict=True):
        limit = RateLimit(f"user-{one.user_id}", concurrency=1)
        queue.enqueue(rq_turns.take_turn_unlocked, args=_arguments(one, delivery), rate_limit=limit)


def _arguments(accepted: Accepted, delivery: Delivery) -> tuple[str, str, int, str]:
    return str(accepted.user_id), str(accepted.message_id), accepted.seq, delivery.text


@dataclass(frozen=True)
class RqWorkers:
    """`rq worker` processes of one class."""

    name: str
    worker_class: str
    web: str
    """What gunicorn serves for it."""
    enqueue: Enqueue
    share: float
    sizes: tuple[int, ...] = (1, 2)
    is_tuned: bool = False
    unit: str = "process"

    @property
    def command(self) -> list[str]:
        """The command line of one process; it finds Redis by REDIS_URL."""
        program = [sys.executable, "-m", "bench.peers.rq_cli", "worker"]
        return [*program, "--worker-class", self.worker_class, QUEUE]

    def accept(self, stack: Stack, workload: Workload) -> None:
        """Commit, then enqueue, in batches."""
        deliveries = workload.deliveries()
        database = Database(stack.postgres.url)
        for start in range(0, len(deliveries), BATCH):
            batch = deliveries[start : start + BATCH]
            self.enqueue(stack.redis, accept(database, batch), batch)
        database.close()

    def commands(self, _stack: Stack, _workload: Workload, size: int) -> list[list[str]]:
        """Start workers; one turn at a time each."""
        return [self.command] * size


FORKING = RqWorkers("rq worker + Lock", "rq.worker.Worker", "bench.peers.rq_web:locked()", enqueue_locked, 0.1)
SIMPLE = RqWorkers(
    "rq SimpleWorker + Lock", "rq.worker.SimpleWorker", "bench.peers.rq_web:locked()", enqueue_locked, 0.3
)
LIMITED = RqWorkers(
    "rq SimpleWorker, RateLimit",
    "rq.worker.SimpleWorker",
    "bench.peers.rq_web:rate_limited()",
    enqueue_rate_limited,
    0.3,
)
