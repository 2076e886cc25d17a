"""Replies: from their commit to the provider, how many a second, and whether a slow provider holds up other turns."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.checking import Sent
from bench.errors import BenchError
from bench.measuring import OURS, Figures, Rounds, alternate
from bench.plan import Plan
from bench.result import Goal, Result
from bench.serving import ONELANE, Ignored, Rate, all_replied, serve_on
from bench.stack import CHANNEL, CHANNELS, SECRET, STOP_S, Stack, fresh
from bench.traffic import quantile
from bench.workload import Workload
from onelane.config import Channel
from onelane.dev.stack import WORKER
from onelane.testing.fake_providers import FakeProviders, Fault, fake_providers

NAME = "replies"
TITLE = "Replies: from their commit to the provider's API"
COLUMNS = [
    *("who", "replies/s", "commit to call, p50 ms", "p99 ms", "a turn of others, p50 ms", "p99 ms", "p99 ÷ alone"),
    *("refused", "without a reply"),
]
ALONE = f"{OURS}, at a steady rate"
FAST = f"{OURS}, as fast as it can"
BESIDE = f"{OURS}, beside a provider that takes 2 s"
SLOW = "slow"
SLOW_S = 2.0
CALLED_P99_MAX_MS = 15.0
A_SECOND_MIN = 1_000
TURNS_TIMES_MAX = 1.2
DONE_S = 120.0
BOTH: Mapping[str, Channel] = {**CHANNELS, SLOW: Channel(provider="standard", secrets=(SECRET,))}
WAITING = "SELECT count(*) FROM inbox"
LEFT = "SELECT (SELECT count(*) FROM inbox) + (SELECT count(*) FROM outbox)"
COMMITTED = """
SELECT reply.id::text, extract(epoch FROM message.processed_at)::float
  FROM messages reply JOIN messages message USING (user_id, turn_seq)
 WHERE reply.direction = 'out' AND message.direction = 'in' AND message.ordinal = 0 AND reply.channel = %s
"""
SLOW_USERS = "SELECT user_id FROM user_aliases WHERE channel = %s"
NOTES = [
    "One web process, one worker process for turns and replies; channels of Standard Webhooks, and their fake.",
    "A call counts from the commit of its reply to the fake's journal, both by the machine's clock.",
    "At a steady rate: 25 turns a second. With 50, both cores are three quarters busy before anything is slow.",
    "The provider that takes 2 s has replies to 1,000 users; the turns are those of 100 others, of another channel.",
    "The replies of the drain are committed before the worker that sends them starts.",
]


def measure(plan: Plan) -> Result:
    """Send for 40 s, alone and beside the slow provider; drain 5,000 replies."""
    rate, users = plan.size((Rate(25, 40), 1_000), (Rate(40, 2), 100))
    runs: dict[str, Callable[[], Figures]] = {
        ALONE: partial(_live, rate, 0),
        BESIDE: partial(_live, rate, users),
        FAST: partial(_drain, plan.size(Workload(500, 5_000), Workload(50, 200))),
    }
    rounds = alternate(plan, runs)
    goals = [
        Goal.at_most("commit to call, p99", CALLED_P99_MAX_MS, rounds.values(ALONE, "called_p99_ms"), " ms"),
        Goal.at_least("replies a second", A_SECOND_MIN, rounds.values(FAST, "replies_per_s")),
        Goal.at_most(
            "p99 of others' turns beside the slow provider ÷ alone",
            TURNS_TIMES_MAX,
            rounds.ratios(BESIDE, ALONE, "reply_p99_ms"),
        ),
        all_replied(rounds, ALONE, BESIDE),
        Goal.at_most("doubles and losses", 0, max(rounds.worst(name, "wrong") for name in runs)),
    ]
    return Result.of(plan, NAME, TITLE, rounds, columns=COLUMNS, row=_row, goals=goals, notes=NOTES)


def _live(rate: Rate, slow_users: int) -> Figures:
    """Measure turns and calls at a steady rate; replies to `slow_users` wait for the slow provider meanwhile."""
    with _faked() as (stack, fakes):
        fakes.play(Fault("answer", times=1, wait_s=SLOW_S), share=1, channel=SLOW)
        sent = _answered(stack, SLOW, Workload(slow_users, slow_users))
        ignored = Ignored([user for (user,) in stack.rows(SLOW_USERS, SLOW)], sent)
        figures = serve_on(stack, ONELANE, rate, ignored)
        if slow_users and not stack.value(LEFT):
            raise BenchError("the slow provider was done before the others")
        return {**figures, **_called(stack, fakes, rate.warm_up)}


def _drain(workload: Workload) -> Figures:
    """Send what is committed."""
    with _faked() as (stack, fakes):
        _answered(stack, CHANNEL, workload)
        worker = stack.start("sender", WORKER, {"WORKER_KINDS": "out"})
        stack.wait_for(lambda: int(stack.value(LEFT)) == 0, "the last reply", DONE_S)
        worker.stop(STOP_S)
        calls = [line["at"] for line in fakes.received.lines("received", what="send")]
        rate = len(calls) / (max(calls) - min(calls))
        return {**_called(stack, fakes), "replies_per_s": round(rate, 1)}


def _answered(stack: Stack, channel: str, workload: Workload) -> list[Sent]:
    """Have messages accepted, and answered by a worker that sends nothing; return them."""
    sent = [_drained(one) for one in workload.sent()]
    with stack.services() as services:
        for one in sent:
            services.intake.accept(channel, [one.delivery])
    worker = stack.start("turns", WORKER, {"WORKER_KINDS": "in"})
    stack.wait_for(lambda: int(stack.value(WAITING)) == 0, "the last turn", DONE_S)
    worker.stop(STOP_S)
    return sent


def _drained(one: Sent) -> Sent:
    """Name a message apart from those that are sent over HTTP."""
    return one._replace(external_id=f"drained {one.external_id}", sender=f"drained {one.sender}")


def _called(stack: Stack, fakes: FakeProviders, warm_up: int = 0) -> Figures:
    """Compare when replies were committed and when the fake was called for them; the first so many do not count."""
    committed = dict(stack.rows(COMMITTED, CHANNEL))
    calls = {line["key"]: line["at"] for line in fakes.received.lines("received", channel=CHANNEL, what="send")}
    counted = sorted(committed.keys() & calls.keys(), key=committed.__getitem__)[warm_up:]
    took_ms = [1000 * (calls[key] - committed[key]) for key in counted]
    shown = fakes.received.keys(CHANNEL)
    return {
        "called_p50_ms": round(quantile(took_ms, 0.5), 2),
        "called_p99_ms": round(quantile(took_ms, 0.99), 2),
        "wrong": len(fakes.received.doubles(CHANNEL)) + len(committed.keys() - shown),
    }


@contextmanager
def _faked() -> Iterator[tuple[Stack, FakeProviders]]:
    with (
        TemporaryDirectory() as folder,
        fake_providers(BOTH, Path(folder) / "received.jsonl") as fakes,
        fresh(channels={name: fakes.pointed(name, channel) for name, channel in BOTH.items()}) as stack,
    ):
        yield stack, fakes


def _row(rounds: Rounds, name: str) -> list[str]:
    def shown(figure: str, form: str = ",.1f") -> str:
        return format(rounds.median(name, figure), form) if figure in rounds.found[name][0] else ""

    return [
        name,
        shown("replies_per_s", ",.0f"),
        *(shown(f"called_{part}_ms") if name != FAST else "" for part in ("p50", "p99")),
        *(shown(f"reply_{part}_ms") for part in ("p50", "p99")),
        f"{rounds.ratio(BESIDE, ALONE, 'reply_p99_ms'):.2f}" if name == BESIDE else "",
        *(f"{rounds.worst(name, figure):.0f}" if name != FAST else "" for figure in ("refused", "unanswered")),
    ]
