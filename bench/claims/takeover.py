"""Takeover: when the users of a worker that is killed with kill -9 go on at another one."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import checking, handlers
from bench.measuring import OURS, Figures, Rounds, alternate
from bench.peers import Contestant
from bench.peers.onelane import Onelane
from bench.peers.rq_workers import FORKING, LIMITED
from bench.plan import Plan
from bench.result import Goal, Result
from bench.stack import Stack, fresh
from bench.workload import Workload
from onelane.lanes.renewer import RENEWALS_PER_TTL

NAME = "takeover"
TITLE = "Takeover: from kill -9 of a worker to its users' next turn at another one"
COLUMNS = ["who", "lock's life s", "its users go on after s", "the message at hand"]
TTL_S = 15
MARGIN_S = 1.0
PATIENCE_S = 10.0
"""What peers get beyond the lock's life."""
HANDLER_S = 300.0
MESSAGES_A_USER = 2
START_S = 20.0
POLL_S = 0.05
IDLE_S = 1.5
"""What a second worker gets to be idle, before the first is killed."""
NOTES = [
    "Each killed worker had its slots full of turns that wait; the other one had a free slot for each of its users.",
    "Counted to the last of its users. The rounds spread the kill over the time between two renewals of ours.",
    "The redis-py Lock's timeout is the same as our lease's life. Nobody renews it, so its users go on after at most",
    "that long, and sooner the longer the turn had run: no ratio is given.",
    "> means: not while this benchmark looked. RQ's RateLimit kept its key for 807 s when somebody waited for it.",
]


@dataclass(frozen=True)
class Rehearsal:
    """One kind of worker, and how many turns it runs at once."""

    contestant: Contestant
    users: int
    ttl_s: int


def measure(plan: Plan) -> Result:
    """Kill one worker of each kind."""
    ttl_s = plan.size(TTL_S, 2)
    rehearsals = [Rehearsal(Onelane(), 8, ttl_s)]
    rehearsals += [Rehearsal(peer, 1, ttl_s) for peer in (FORKING, LIMITED) if plan.wants(peer.name)]
    phases = [ttl_s / RENEWALS_PER_TTL * (number + 0.5) / plan.runs for number in range(plan.runs)]
    runs: dict[str, Callable[[], Figures]] = {
        one.contestant.name: partial(_kill, one, iter(phases)) for one in rehearsals
    }
    rounds = alternate(plan, runs)
    return Result.of(
        plan,
        NAME,
        TITLE,
        rounds,
        columns=COLUMNS,
        row=_row,
        goals=[Goal.at_most("the last user goes on", ttl_s + MARGIN_S, rounds.worst(OURS, "after_s"), " s")],
        notes=NOTES,
    )


def _kill(rehearsal: Rehearsal, phases: Iterator[float]) -> Figures:
    """Kill a worker, in each round another while after it has renewed its leases."""
    workload = Workload(rehearsal.users, rehearsal.users * MESSAGES_A_USER)
    with fresh() as stack:
        rehearsal.contestant.accept(stack, workload)
        notes = stack.folder / "notes"
        environment = {**handlers.environment(notes, HANDLER_S), "LOCK_TTL_S": rehearsal.ttl_s}
        [command] = rehearsal.contestant.commands(stack, workload, 1)
        first = stack.start("first", command, environment)
        stack.wait_for(lambda: len(_begun(notes)) == rehearsal.users, "the first turns", START_S)
        second = stack.start("second", command, environment)
        _let_idle(stack)
        time.sleep(next(phases))
        killed_at = time.monotonic()
        first.kill()
        seen = _seen(rehearsal, notes, killed_at)
        second.kill()  # its turns would be waited for
        verdict = checking.judge(stack, rehearsal.contestant.name, workload.sent(), checking.AT_ANY_TIME)
        return {**seen, "verdict": verdict}


def _let_idle(stack: Stack) -> None:
    """Wait until RQ knows both workers, which is when they ask for work."""
    stack.wait_for(lambda: stack.redis.scard("rq:workers") >= 2, "the second worker's start", START_S)  # noqa: PLR2004
    time.sleep(IDLE_S)


def _seen(rehearsal: Rehearsal, notes: Path, killed_at: float) -> Figures:
    """Look until every user of the killed worker has gone on, and for peers as long as their patience lasts."""
    ends = killed_at + rehearsal.ttl_s + PATIENCE_S
    after: list[dict[str, Any]] = []
    while time.monotonic() < ends and len({note["user"] for note in after}) < rehearsal.users:
        time.sleep(POLL_S)
        after = [note for note in _begun(notes) if note["at"] > killed_at]
    firsts = [min(note["at"] for note in after if note["user"] == user) for user in {note["user"] for note in after}]
    went_on = len(firsts) == rehearsal.users
    return {
        "ttl_s": rehearsal.ttl_s,
        "went_on": went_on,
        "after_s": round((max(firsts) if went_on else time.monotonic()) - killed_at, 2),
        "runs_again": bool(after) and all(note["seq"] == 1 for note in after),
    }


def _begun(notes: Path) -> Sequence[Any]:
    return [note for note in handlers.read(notes) if note["event"] == "begin"]


def _row(rounds: Rounds, name: str) -> list[str]:
    figures = rounds.found[name]
    sign = "" if all(one["went_on"] for one in figures) else "> "
    if all(one["runs_again"] for one in figures):
        message = "runs again, first"
    else:
        message = "overtaken" if sign == "" else "waits"
    return [
        name,
        str(figures[0]["ttl_s"]),
        f"{sign}{rounds.median(name, 'after_s'):.1f}",
        message,
    ]
