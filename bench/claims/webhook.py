"""Webhook latency: how long a provider waits for its answer, at 200 a second."""

from functools import partial

from bench import serving
from bench.measuring import OURS, Rounds, alternate
from bench.peers.rq_workers import FORKING, LIMITED, SIMPLE
from bench.plan import Plan
from bench.result import Goal, Result
from bench.serving import WEB_ALONE, Rate

NAME = "webhook"
TITLE = "Webhook: from POST to answer, at a steady rate"
COLUMNS = [
    *("who", "a second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "ours ÷ its p99", "web CPU ms"),
    *("refused", "without a reply"),
]
P99_MAX_MS = 15.0
P999_MAX_MS = 100.0
NOTES = [
    "The same stack as above, the worker at work beside the web; an answer means that the message is committed.",
    "The web alone has no worker beside it, as on a machine of its own: what it accepts waits.",
    "Peers have our endpoint, signature check and SQL, and put a job on RQ's queue. They get rates",
    "that their workers keep up with; nothing is divided then.",
    "pgbench makes the one SQL call at the same rate.",
]


def measure(plan: Plan) -> Result:
    """Send for 15 s; that is 3,000 answers, three of them beyond p99.9."""
    seconds = plan.size(15, 2)
    rate, simple, forking = (Rate(per_s, seconds) for per_s in plan.size((200, 120, 20), (100, 60, 20)))
    rates = {SIMPLE: simple, LIMITED: simple, FORKING: forking}
    others = serving.contestants(plan, rate, rates, turns=False)
    alone = {WEB_ALONE.name: partial(serving.serve, WEB_ALONE, rate, turns=False)}
    rounds = alternate(plan, {OURS: others[OURS], **alone, **others})
    goals = [
        Goal.at_most("p99", P99_MAX_MS, rounds.values(OURS, "answer_p99_ms"), " ms"),
        Goal.at_most("p99.9", P999_MAX_MS, rounds.values(OURS, "answer_p999_ms"), " ms"),
        Goal.at_most("refused", 0, rounds.worst(OURS, "refused")),
    ]
    return Result.of(plan, NAME, f"{TITLE} of {rate}", rounds, columns=COLUMNS, row=_row, goals=goals, notes=NOTES)


def _row(rounds: Rounds, name: str) -> list[str]:
    return [
        name,
        str(rounds.found[name][0]["rate"]),
        *(f"{rounds.median(name, f'answer_{part}_ms'):,.1f}" for part in ("p50", "p99", "p999", "max")),
        serving.ours_to(rounds, name, "answer_p99_ms"),
        f"{rounds.median(name, 'web_cpu_ms'):.2f}",
        *(f"{rounds.worst(name, figure):.0f}" for figure in ("refused", "unanswered")),
    ]
