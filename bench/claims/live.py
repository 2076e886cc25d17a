"""Live latency: how long it is from a POST to its reply's commit, at 50 a second."""

from bench import serving
from bench.measuring import OURS, Rounds, alternate
from bench.peers.rq_workers import FORKING, LIMITED, SIMPLE
from bench.plan import Plan
from bench.result import Goal, Result
from bench.serving import Rate

NAME = "live"
TITLE = "Live: from POST to reply committed, at a steady rate"
COLUMNS = ["who", "a second", "p50 ms", "p99 ms", "max ms", "ours ÷ its p50", "refused", "without a reply"]
P50_MAX_MS = 4.0
P99_MAX_MS = 10.0
NOTES = [
    "One web process (gunicorn), one worker process, 100 users, after the first turn and 3 s of warm-up.",
    "Counted from the moment a webhook is due, not from when it could be sent; its end is Postgres' own notification.",
    "pgbench makes the three SQL calls at the same rate, without web, Redis and Python.",
    "The forking worker gets a rate that it can keep up with; nothing is divided then.",
]


def measure(plan: Plan) -> Result:
    """Send for 15 s."""
    rate, slow = plan.size((Rate(50, 15), Rate(10, 15)), (Rate(50, 2), Rate(10, 2)))
    rounds = alternate(plan, serving.contestants(plan, rate, {SIMPLE: rate, LIMITED: rate, FORKING: slow}, turns=True))
    goals = [
        Goal.at_most("p50", P50_MAX_MS, rounds.values(OURS, "reply_p50_ms"), " ms"),
        Goal.at_most("p99", P99_MAX_MS, rounds.values(OURS, "reply_p99_ms"), " ms"),
        serving.all_replied(rounds, OURS),
    ]
    return Result.of(plan, NAME, f"{TITLE} of {rate}", rounds, columns=COLUMNS, row=_row, goals=goals, notes=NOTES)


def _row(rounds: Rounds, name: str) -> list[str]:
    return [
        name,
        str(rounds.found[name][0]["rate"]),
        *(f"{rounds.median(name, f'reply_{part}_ms'):,.1f}" for part in ("p50", "p99", "max")),
        serving.ours_to(rounds, name, "reply_p50_ms"),
        *(f"{rounds.worst(name, figure):.0f}" for figure in ("refused", "unanswered")),
    ]
