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
from bench.measuring import OURS, Figures
from bench.peers import pgbench
from bench.peers.rq_workers import FORKING, LIMITED, SIMPLE, RqWorkers
from bench.plan import Plan
from bench.replies import Replies
from bench.stack import STOP_S, Stack, fresh
from bench.traffic import quantile
from onelane.dev.embedded.redis import free_port
from onelane.dev.stack import WEB, WORKER

USERS = 100
WARM_UP_S = 2
PATIENCE_S = 10.0
LATENCY_US = 2
"""The column of pgbench's log, counted from when the transaction was due."""
CURVE = [number / 100 for number in range(100)] + [0.995, 0.999, 1.0]
"""The quantiles that are kept for a plot."""


@dataclass(frozen=True)
class Rate:
    """So many webhooks a second, for so long."""

    per_s: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.per_s} a second for {self.seconds} s"


@dataclass(frozen=True)
class Service:
    """What gunicorn serves, and the worker beside it."""

    application: str
    worker: Sequence[str]
    environment: Mapping[str, object] = field(default_factory=dict)
    """The worker's, beyond what every process of a stack knows."""
    name: str = OURS


ONELANE = Service(WEB, WORKER)


class Ignored(NamedTuple):
    """Users who are not measured, and what they have sent: it may still wait at the end."""

    users: Sequence[UUID] = ()
    sent: Sequence[Sent] = ()


NOBODY = Ignored()


def serve(service: Service, rate: Rate, patience_s: float) -> Figures:
    """Measure a service on servers of its own."""
    with fresh() as stack:
        return serve_on(stack, service, rate, patience_s)


def serve_on(stack: Stack, service: Service, rate: Rate, patience_s: float, ignored: Ignored = NOBODY) -> Figures:
    """Measure from the moment a webhook is due to its answer, and to its reply's commit.

    `patience_s` is how long the last replies are waited for.
    """
    replies = Replies(stack, ignored.users)
    port = free_port()
    web = stack.start_web(port, service.application)
    stack.await_web(port)
    worker = stack.start("worker", service.worker, service.environment)
    waiting = traffic.requests(rate.per_s * (WARM_UP_S + rate.seconds), USERS)
    warm_up = rate.per_s * WARM_UP_S  # until then everything connects and prepares its statements
    warmed_up = traffic.send(port, waiting[:warm_up], rate.per_s)
    replies.wait_for(warm_up, patience_s)
    web_cpu_s = cpu_s([web.pid])
    answers = traffic.send(port, waiting[warm_up:], rate.per_s)
    web_cpu_s = cpu_s([web.pid]) - web_cpu_s
    replies.wait_for(len(waiting), patience_s)
    replied = replies.stop()
    worker.stop(STOP_S)
    rules = checking.AT_THE_END if patience_s and not ignored.sent else checking.AT_ANY_TIME
    sent = [*ignored.sent, *(one.message for one in [*warmed_up, *answers] if one.is_good)]
    good = [answer for answer in answers if answer.is_good]
    ends = [(one.due, replied.get(one.message.external_id)) for one in good]
    took = [1000 * (at - due) for due, at in ends if at]
    return {
        "rate": rate.per_s,
        "refused": len(answers) - len(good),
        "unanswered": len(good) - len(took),
        "web_cpu_ms": round(1000 * web_cpu_s / len(answers), 2),
        **_quantiles("answer", [answer.took_ms for answer in good]),
        **_quantiles("reply", took),
        "verdict": checking.judge(stack, service.name, sent, rules),
    }


def sql_alone(rate: Rate, *, turns: bool) -> Figures:
    """Measure the same SQL calls at the same rate, made by pgbench, without web, Redis and Python."""
    with fresh() as stack:
        prefix = stack.folder / "took"
        argv = pgbench.at_a_rate(stack, USERS, rate.per_s, rate.seconds, prefix, turns=turns)
        run = stack.start("pgbench", argv, may_end=True)
        stack.wait_for(lambda: not run.is_running, "pgbench's end", rate.seconds + PATIENCE_S)
        logs = stack.folder.glob(f"{prefix.name}.*")
        took = [int(line.split()[LATENCY_US]) / 1000 for log in logs for line in log.read_text().splitlines()]
    if not took:
        raise BenchError("pgbench made no call that succeeded")
    figures = {**_quantiles("answer", took), **_quantiles("reply", took)}
    return {"rate": rate.per_s, "refused": 0, "unanswered": 0, "web_cpu_ms": 0.0, **figures}


def contestants(plan: Plan, rate: Rate, slow: Rate, *, turns: bool) -> Mapping[str, Callable[[], Figures]]:
    """List who is measured, ours first, up to the reply (`turns`) or to the webhook's answer.

    The forking worker gets a rate that it can keep up with.
    """
    patience_s = PATIENCE_S if turns else 0.0
    rates: dict[RqWorkers, Rate] = {SIMPLE: rate, LIMITED: rate, FORKING: slow}
    found: dict[str, Callable[[], Figures]] = {OURS: partial(serve, ONELANE, rate, patience_s)}
    if plan.wants("pgbench"):
        found["pgbench, the SQL alone"] = partial(sql_alone, rate, turns=turns)
    for peer, its_rate in rates.items():
        if plan.wants(peer.name):
            found[peer.name] = partial(serve, Service(peer.web, peer.command, name=peer.name), its_rate, patience_s)
    return found


def _quantiles(what: str, took_ms: Sequence[float]) -> Figures:
    named = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    figures: Figures = {f"{what}_{name}_ms": round(quantile(took_ms, part), 2) for name, part in named.items()}
    return {**figures, f"{what}_curve_ms": [round(quantile(took_ms, part), 2) for part in CURVE]}
