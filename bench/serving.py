"""A whole service under steady traffic: gunicorn, a worker, and webhooks over HTTP."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple
from uuid import UUID

from bench import checking, traffic
from bench.checking import Sent
from bench.costs import cpu_s
from bench.errors import BenchError
from bench.measuring import OURS, Figures, Rounds
from bench.peers import pgbench
from bench.peers.rq_workers import RqWorkers
from bench.plan import Plan
from bench.replies import Replies, Unnoticed
from bench.result import Goal
from bench.stack import STOP_S, Stack, fresh
from bench.traffic import quantile
from onelane.dev.embedded.child import stop_all
from onelane.dev.embedded.redis import free_port
from onelane.dev.stack import WEB, WORKER

USERS = 100
WARM_UP_S = 3
"""After the first webhook was worked off: until then everything connects, and prepares its statements."""
PATIENCE_S = 10.0
"""How long the last replies are waited for."""
CURVE = [number / 100 for number in range(100)] + [0.995, 0.999, 1.0]
"""The quantiles that are kept for a plot."""


@dataclass(frozen=True)
class Rate:
    """So many webhooks a second, for so long."""

    per_s: int
    seconds: int

    @property
    def warm_up(self) -> int:
        """How many webhooks come before those that are measured."""
        return 1 + self.per_s * WARM_UP_S

    def __str__(self) -> str:
        return f"{self.per_s} a second for {self.seconds} s"


@dataclass(frozen=True)
class Service:
    """What gunicorn serves, and the worker beside it; without one, everything that is accepted waits."""

    application: str
    worker: Sequence[str] = ()
    environment: Mapping[str, object] = field(default_factory=dict)
    """The worker's, beyond what every process of a stack knows."""
    name: str = OURS


ONELANE = Service(WEB, WORKER)
WEB_ALONE = Service(WEB, name=f"{OURS}, the web alone")


class Ignored(NamedTuple):
    """Users who are not measured, and what they have sent: it may still wait at the end."""

    users: Sequence[UUID] = ()
    sent: Sequence[Sent] = ()


NOBODY = Ignored()


def serve(service: Service, rate: Rate, *, turns: bool) -> Figures:
    """Measure a service on servers of its own."""
    with fresh() as stack:
        return serve_on(stack, service, rate, turns=turns)


def serve_on(stack: Stack, service: Service, rate: Rate, ignored: Ignored = NOBODY, *, turns: bool = True) -> Figures:
    """Measure from the moment a webhook is due to its answer, and with `turns` to its reply's commit."""
    replies: Replies | Unnoticed = Replies(stack, ignored.users) if turns else Unnoticed(stack)
    patience_s = PATIENCE_S if service.worker else 0.0
    port = free_port()
    web = stack.start_web(port, service.application)
    stack.await_web(port)
    workers = [stack.start("worker", service.worker, service.environment)] if service.worker else []
    warm_up = rate.warm_up
    waiting = traffic.requests(warm_up + rate.per_s * rate.seconds, USERS)
    first = traffic.send(port, waiting[:1], rate.per_s)
    replies.wait_for(1, patience_s)  # what a worker does as it starts holds up the first second of its turns
    warmed_up = [*first, *traffic.send(port, waiting[1:warm_up], rate.per_s)]
    replies.wait_for(warm_up, patience_s)
    web_cpu_s = cpu_s([web.pid])
    answers = traffic.send(port, waiting[warm_up:], rate.per_s)
    web_cpu_s = cpu_s([web.pid]) - web_cpu_s
    replies.wait_for(len(waiting), patience_s)
    replied = replies.stop()
    stop_all([web, *workers], STOP_S)
    sent = [*ignored.sent, *(one.message for one in [*warmed_up, *answers] if one.is_good)]
    good = [answer for answer in answers if answer.is_good]
    ends = [(one.due, replied.get(one.message.external_id)) for one in good]
    took = [1000 * (at - due) for due, at in ends if at]
    return {
        "rate": rate.per_s,
        "refused": len(answers) - len(good),
        "unanswered": len(good) - len(took) if workers else 0,
        "web_cpu_ms": round(1000 * web_cpu_s / len(answers), 2),
        **_quantiles("answer", [answer.took_ms for answer in good]),
        **(_quantiles("reply", took) if turns else {}),
        "verdict": checking.judge(
            stack, service.name, sent, checking.AT_THE_END if workers and not ignored.sent else checking.AT_ANY_TIME
        ),
    }


def sql_alone(rate: Rate, *, turns: bool) -> Figures:
    """Measure the same SQL calls at the same rate, made by pgbench, without web, Redis and Python."""
    with fresh() as stack:
        replies: Replies | Unnoticed = Replies(stack) if turns else Unnoticed(stack)  # Postgres has the same work
        prefix = stack.folder / "took"
        seconds = WARM_UP_S + rate.seconds
        argv = pgbench.at_a_rate(stack, USERS, rate.per_s, seconds, prefix, turns=turns)
        run = stack.start("pgbench", argv, may_end=True)
        stack.wait_for(lambda: not run.is_running, "pgbench's end", seconds + PATIENCE_S)
        replies.stop()
        calls = pgbench.logged(prefix)
    began = min((due for due, _ in calls), default=0.0)
    took = [took_ms for due, took_ms in calls if due >= began + WARM_UP_S]
    if not took:
        raise BenchError("pgbench made no call that succeeded")
    figures = {**_quantiles("answer", took), **_quantiles("reply", took)}
    return {"rate": rate.per_s, "refused": 0, "unanswered": 0, "web_cpu_ms": 0.0, **figures}


def contestants(
    plan: Plan, rate: Rate, peers: Mapping[RqWorkers, Rate], *, turns: bool
) -> Mapping[str, Callable[[], Figures]]:
    """List who is measured, ours first, up to the reply (`turns`) or to the webhook's answer; RQ at its own rates."""
    found: dict[str, Callable[[], Figures]] = {OURS: partial(serve, ONELANE, rate, turns=turns)}
    if plan.wants("pgbench"):
        found["pgbench, the SQL alone"] = partial(sql_alone, rate, turns=turns)
    for peer, its_rate in peers.items():
        if plan.wants(peer.name):
            found[peer.name] = partial(serve, Service(peer.web, peer.command, name=peer.name), its_rate, turns=turns)
    return found


def ours_to(rounds: Rounds, name: str, figure: str) -> str:
    """Format ours ÷ its figure; empty where that compares nothing: with ourselves, or with another rate."""
    is_alike = name != OURS and rounds.median(name, "rate") == rounds.median(OURS, "rate")
    return f"{rounds.ratio(OURS, name, figure):.2f}" if is_alike else ""


def all_replied(rounds: Rounds, *names: str) -> Goal:
    """Require that every webhook was accepted and answered in time."""
    missed = max(rounds.worst(name, figure) for name in names for figure in ("refused", "unanswered"))
    return Goal.at_most("refused or without a reply", 0, missed)


def _quantiles(what: str, took_ms: Sequence[float]) -> Figures:
    named = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    figures: Figures = {f"{what}_{name}_ms": round(quantile(took_ms, part), 2) for name, part in named.items()}
    return {**figures, f"{what}_curve_ms": [round(quantile(took_ms, part), 2) for part in CURVE]}
