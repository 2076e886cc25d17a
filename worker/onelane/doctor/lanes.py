"""Checks of the lanes: Redis and Postgres agree about who has work, and a worker is there to do it.

Both change all the time, and a lane may be between two states when it is read. So a doubtful lane is read again, for as
long as the workers' reconciler needs for its round: a fault that is still there then does not heal by itself.
"""

import time
from enum import StrEnum
from math import inf
from typing import Any, NamedTuple
from uuid import UUID

from onelane import keys
from onelane.doctor import sample
from onelane.doctor.finding import Deployment, Finding, Health, failed, ok, warning
from onelane.lanes import clock
from onelane.operations.snapshot import Survey
from onelane.processes.duties import ROUND_S
from onelane.processes.reconciler import WAITING_USERS
from onelane.turns.pacing import parked_max_s

SAMPLE_MAX = 1_000
"""How many are checked of each: waiting users, any users, lanes. When there are fewer, all are."""
SETTLE_S = ROUND_S + 1.0
AGAIN_S = 0.25
SHOWN_MAX = 20
WORKS = {keys.IN: "runs turns", keys.OUT: "sends replies"}

USERS = "SELECT id FROM users WHERE id > %(after)s ORDER BY id LIMIT %(most)s"
STANDING = """
SELECT u.id, u.waiting, u.paused_at IS NOT NULL AS is_paused,
       (SELECT count(*) FROM inbox i WHERE i.user_id = u.id) AS counted,
       EXISTS (SELECT FROM inbox i WHERE i.user_id = u.id AND i.seq < u.next_seq) AS is_hidden
  FROM users u WHERE u.id = ANY(%s)
"""


class Fault(StrEnum):
    """What may be wrong with a lane."""

    NO_LANE = "messages wait, but there is no lane"
    STUCK = "the lane is paused, the user is not"
    HIDDEN = "a message waits below users.next_seq, where nobody looks"
    MISCOUNTED = "users.waiting is not the number of waiting messages"
    FOREIGN = "a lane without a user"
    NOT_A_USER = "a lane whose name is no user id"
    AHEAD = "the lane waits for longer than anything we set"
    NOT_PAUSED = "the user is paused, the lane is due"
    IDLE = "the lane is due, but nothing waits"


REMEDIES = {
    Fault.NO_LANE: "start a worker: its reconciler makes the lane within seconds; if one runs, read its log",
    Fault.STUCK: "onelane lane resume USER",
    Fault.HIDDEN: "UPDATE users u SET next_seq = (SELECT min(seq) FROM inbox i WHERE i.user_id = u.id)"
    " WHERE id = 'USER'",
    Fault.MISCOUNTED: "UPDATE users u SET waiting = (SELECT count(*) FROM inbox i WHERE i.user_id = u.id)"
    " WHERE id = 'USER'",
    Fault.FOREIGN: "check that REDIS_URL and DATABASE_URL belong together; if they do: redis-cli ZREM lanes:in USER",
    Fault.NOT_A_USER: "somebody else writes into this Redis: give Onelane its own; redis-cli ZREM lanes:in NAME",
    Fault.AHEAD: "start a worker: it makes the lane due within seconds; if one runs, read its log",
    Fault.NOT_PAUSED: "start a worker: it takes the lane out of the due order",
    Fault.IDLE: "start a worker: it removes the lane",
}
HARMLESS = frozenset({Fault.NOT_PAUSED, Fault.IDLE})
"""No message waits longer because of them."""


class Doubt(NamedTuple):
    """A lane that may have a fault."""

    fault: Fault
    lane: str


def lanes_agree(deployment: Deployment) -> Finding:
    """Check that every user with waiting messages has a lane, every lane a user, and that both agree who is paused."""
    users, strangers = _sample(deployment)
    doubts = _doubts(deployment, users)
    settled_at = time.monotonic() + SETTLE_S
    while doubts and time.monotonic() < settled_at:
        time.sleep(AGAIN_S)
        doubts &= _doubts(deployment, [UUID(doubt.lane) for doubt in doubts])
    faults = [*(Doubt(Fault.NOT_A_USER, name) for name in strangers), *sorted(doubts)]
    if faults:
        return _finding(faults, len(users))
    return ok(f"Redis and Postgres agree; users looked at: {len(users)}")


def workers_live(deployment: Deployment) -> Finding:
    """Check that a worker is alive, for each kind of lane, and not suspended."""
    snapshot = Survey(deployment.lanes).snapshot()
    alive = [worker for worker in snapshot.workers if worker.is_alive]
    if not alive:
        return warning("no worker is alive: messages are accepted and wait", "start one: onelane worker")
    if snapshot.is_suspended:
        return warning("all workers are suspended", "rq resume")
    kinds = {kind for worker in alive for kind in worker.slots or keys.KINDS}
    if missing := [kind for kind in keys.KINDS if kind not in kinds]:
        return warning(f"no worker {WORKS[missing[0]]}: they wait", f"start one whose WORKER_KINDS has {missing[0]}")
    return ok(f"{len(alive)} alive")


def _finding(faults: list[Doubt], looked_at: int) -> Finding:
    worst = Health.WARNING if {doubt.fault for doubt in faults} <= HARMLESS else Health.FAILED
    first = min(faults, key=lambda doubt: list(Fault).index(doubt.fault))
    found = f"{first.fault}: {first.lane}" + (f", and {len(faults) - 1} more" if len(faults) > 1 else "")
    details = tuple(f"{doubt.fault}: {doubt.lane}" for doubt in faults[:SHOWN_MAX]) if len(faults) > 1 else ()
    finding = warning if worst is Health.WARNING else failed
    return finding(
        f"{found} (users looked at: {looked_at})", REMEDIES[first.fault].replace("USER", first.lane), details
    )


def _sample(deployment: Deployment) -> tuple[list[UUID], list[str]]:
    """Choose users at random, from those who wait, from all, and from the lanes; return also lanes of no user."""
    database, queries = deployment.database, (WAITING_USERS[keys.IN], USERS)
    start = sample.anywhere(database)
    users = {user for query in queries for user in sample.read_from(database, query, start, SAMPLE_MAX)}
    members = deployment.lanes.scripts.ask(lambda: deployment.lanes.client.zrandmember(keys.lanes(), SAMPLE_MAX))
    strangers = []
    for member in members:
        name = member.decode(errors="replace")
        try:
            users.add(UUID(name))
        except ValueError:
            strangers.append(repr(name[:64]))
    return sorted(users), sorted(strangers)


def _doubts(deployment: Deployment, users: list[UUID]) -> set[Doubt]:
    """Compare Redis and Postgres once."""
    if not users:
        return set()
    standing = {row.id: row for row in deployment.database.rows(STANDING, (users,))}
    now_ms, scores, held_until = _in_redis(deployment, users)
    farthest_ms = now_ms + parked_max_s(deployment.settings) * 1000
    doubts = {
        Doubt(fault, str(user))
        for user, score, until in zip(users, scores, held_until, strict=True)
        for fault in _faults(standing.get(user), score, is_due=score is not None and max(score, until) <= now_ms)
    }
    ahead = {str(user) for user, score in zip(users, scores, strict=True) if farthest_ms < (score or 0) < inf}
    return doubts | {Doubt(Fault.AHEAD, user) for user in ahead}


def _in_redis(deployment: Deployment, users: list[UUID]) -> tuple[float, list[float | None], list[float]]:
    """Return the lanes' time, when each user's lane is due, and until when it is locked; all in ms."""
    now_ms = clock.read_ms(deployment.lanes.scripts)
    scores, *until = deployment.lanes.scripts.ask(lambda: _scores_and_locks(deployment, users))
    return now_ms, scores, [float(ends or 0) for ends in until]


def _scores_and_locks(deployment: Deployment, users: list[UUID]) -> list[Any]:
    with deployment.lanes.client.pipeline(transaction=False) as pipeline:  # a full Redis refuses transactions
        pipeline.zmscore(keys.lanes(), [str(user) for user in users])
        for user in users:
            pipeline.hget(keys.lock(user), "until")
        answers: list[Any] = pipeline.execute()
    return answers


def _faults(user: Any, score: float | None, *, is_due: bool) -> list[Fault]:
    if user is None:
        return [Fault.FOREIGN] if score is not None else []
    found = {
        Fault.NO_LANE: user.counted and score is None,
        Fault.STUCK: score == float("inf") and not user.is_paused,
        Fault.HIDDEN: user.is_hidden,
        Fault.MISCOUNTED: user.waiting != user.counted,
        Fault.NOT_PAUSED: user.is_paused and is_due,
        Fault.IDLE: is_due and not user.counted and not user.is_paused,
    }
    return [fault for fault, is_so in found.items() if is_so]
