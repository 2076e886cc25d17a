"""Skewed drain: ten users have half of the messages, and it shows who breaks a user's order."""

from dataclasses import replace

from bench.claims import drain
from bench.peers.rq_workers import FORKING, LIMITED, SIMPLE
from bench.plan import Plan
from bench.result import Result
from bench.workload import Workload

NAME = "skewed"
TITLE = "Skewed drain: messages a second, few users having half of them"
RQ_SIZES = (2,)
NOTES = [
    "As above; messages come in random order of users. Without pgbench, whose clients share users out evenly.",
    "RQ gets two processes: one alone keeps any order, and whoever runs one today runs two tomorrow.",
]


def measure(plan: Plan) -> Result:
    """Drain 4,000 messages of 500 users, of whom 10 write half."""
    workload = plan.size(Workload(500, 4_000, hot_users=10), Workload(40, 200, hot_users=2))
    rounds = drain.drained(plan, workload, [replace(peer, sizes=RQ_SIZES) for peer in (FORKING, SIMPLE, LIMITED)])
    return Result.of(plan, NAME, f"{TITLE}; {workload}", rounds, columns=drain.COLUMNS, row=drain.row, notes=NOTES)
