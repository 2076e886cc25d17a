"""Webhook latency: how long a provider waits for its answer, at 200 a second."""

from bench import serving
from bench.measuring import OURS, Rounds, alternate
from bench.plan import Plan
from bench.result import Goal, Result
from bench.serving import Rate

NAME = "webhook"
TITLE = "Webhook: from POST to answer, at a steady rate"
COLUMNS = ["who", "a second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "ours ÷ its p99", "web CPU ms", "refused"]
P99_MAX_MS = 15.0
P999_MAX_MS = 100.0
NOTES = [
    "The same stack as above, the worker at work beside the web; an answer means that the message is committed.",
    "Peers have our endpoint, signature check and SQL, and put a job on RQ's queue.",
    "pgbench makes the one SQL call at the same rate.",
]


def measure(plan: Plan) -> Result:
    """Send for 15 s; that is 3,000 answers, three of them beyond p99.9."""
    rate, slow = plan.size((Rate(200, 15), Rate(50, 15)), (Rate(100, 2), Rate(50, 2)))
    rounds = alternate(plan, serving.contestants(plan, rate, slow, turns=False))
    goals = [
        Goal.at_most("p99", P99_MAX_MS, rounds.median(OURS, "answer_p99_ms"), " ms"),
        Goal.at_most("p99.9", P999_MAX_MS, rounds.median(OURS, "answer_p999_ms"), " ms"),
    ]
    return Result.of(plan, NAME, f"{TITLE} of {rate}", rounds, columns=COLUMNS, row=_row, goals=goals, notes=NOTES)


def _row(rounds: Rounds, name: str) -> list[str]:
    return [
        name,
        str(rounds.found[name][0]["rate"]),
        *(f"{rounds.median(name, f'answer_{part}_ms'):,.1f}" for part in ("p50", "p99", "p999", "max")),
        "" if name == OURS else f"{rounds.ratio(OURS, name, 'answer_p99_ms'):.2f}",
        f"{rounds.median(name, 'web_cpu_ms'):.2f}",
        f"{rounds.worst(name, 'refused'):.0f}",
    ]
