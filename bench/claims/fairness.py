"""Fairness: how long everybody else waits for a reply, beside one user whose messages wait by the thousand."""

from functools import partial
from uuid import uuid4

from bench import handlers
from bench.checking import Sent
from bench.errors import BenchError
from bench.measuring import OURS, Figures, Rounds, alternate
from bench.peers import onelane
from bench.plan import Plan
from bench.result import Goal, Result
from bench.serving import ONELANE, USERS, Ignored, Rate, Service, all_replied, serve_on
from bench.stack import fresh

NAME = "fairness"
TITLE = "Fairness: from POST to reply committed, alone and beside one user's flood"
COLUMNS = [
    "who",
    "flood before",
    "flood after",
    "p50 ms",
    "p99 ms",
    "max ms",
    "p50 ÷ alone",
    "p99 ÷ alone",
    "refused",
    "without a reply",
]
ALONE = f"{OURS} alone"
BESIDE = f"{OURS} beside a flood"
FLOOD = 10_000
P99_TIMES_MAX = 2.0
HANDLER_S = 0.005
FLOODER = "flooder"
FLOODER_ID = "SELECT user_id FROM user_aliases WHERE alias = %s"
LEFT = "SELECT count(*) FROM inbox WHERE user_id = %s"
LASTED = """
SELECT coalesce(max(processed_at) FILTER (WHERE user_id = %s) > max(accepted_at) FILTER (WHERE user_id <> %s), false)
  FROM messages WHERE direction = 'in'
"""
NOTES = [
    "One web process, one worker process with its default slots; every handler waits 5 ms.",
    "Measured after the first turn and 3 s of warm-up.",
    "Latency is that of the 100 others, from the moment a webhook is due; the flood was accepted before they wrote.",
    "Alone they have the machine to themselves; beside the flood its turns take CPU, Postgres and Redis as well.",
]


def measure(plan: Plan) -> Result:
    """Send for 25 s, which is 1,000 messages: ten of them lie beyond p99."""
    rate, flood = plan.size((Rate(40, 25), FLOOD), (Rate(40, 2), FLOOD * 2 // 5))
    rounds = alternate(plan, {ALONE: partial(_live, rate, 0), BESIDE: partial(_live, rate, flood)})
    return Result.of(
        plan,
        NAME,
        f"{TITLE}; {flood:,} messages of one user, {rate.per_s} a second of {USERS} others for {rate.seconds} s",
        rounds,
        columns=COLUMNS,
        row=_row,
        goals=[
            Goal.at_most("p99 beside the flood ÷ alone", P99_TIMES_MAX, rounds.ratios(BESIDE, ALONE, "reply_p99_ms")),
            all_replied(rounds, ALONE, BESIDE),
        ],
        notes=NOTES,
    )


def flood_of(messages: int) -> list[Sent]:
    """Make the messages of one user, who is not one of those that write meanwhile."""
    return [Sent(f"flood-{number}", FLOODER, f"message {number}", number) for number in range(1, messages + 1)]


def _live(rate: Rate, flood: int) -> Figures:
    """Measure the others. Raise BenchError when the flood ended before their last message: that one was alone."""
    service = Service(ONELANE.application, ONELANE.worker, handlers.environment(None, HANDLER_S))
    with fresh() as stack:
        sent = flood_of(flood)
        onelane.accept(stack, [one.delivery for one in sent])
        flooder = stack.value(FLOODER_ID, FLOODER) if flood else uuid4()
        figures = serve_on(stack, service, rate, Ignored([flooder], sent))
        left, has_lasted = stack.value(LEFT, flooder), stack.value(LASTED, flooder, flooder)
    if flood and not has_lasted:
        raise BenchError(f"{flood:,} messages were worked off before the others had written theirs")
    return {**figures, "flood": flood, "flood_left": left}


def _row(rounds: Rounds, name: str) -> list[str]:
    parts = ("p50", "p99")
    return [
        name,
        *(f"{rounds.median(name, figure):,.0f}" for figure in ("flood", "flood_left")),
        *(f"{rounds.median(name, f'reply_{part}_ms'):,.1f}" for part in (*parts, "max")),
        *("" if name == ALONE else f"{rounds.ratio(name, ALONE, f'reply_{part}_ms'):.2f}" for part in parts),
        *(f"{rounds.worst(name, figure):.0f}" for figure in ("refused", "unanswered")),
    ]
