"""The snapshot: all lanes at one instant, in one call to Redis whose cost does not grow with the number of lanes."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import NonNegativeInt, TypeAdapter, ValidationError, computed_field

from onelane.lanes.lanes import Lanes
from onelane.model import Value
from onelane.operations.dead import LISTED
from onelane.postgres.db import Database
from onelane.telemetry.counters import numbers_in

ROWS_MAX = 10_000
LOCKS_MAX = 2_000
WORKERS_MAX = 1_000
FAR_S = 1e12
COUNT_MAX = 100_000
"""Messages are counted up to this number."""
HEARTBEAT_MAX_S = 15.0
"""A worker whose heartbeat is older, by Redis' clock, is not alive; it writes one every two or three seconds."""
SLOTS: Final = TypeAdapter(dict[str, NonNegativeInt])

BACKLOG = f"""
SELECT (SELECT count(*) FROM (SELECT FROM inbox LIMIT %(most)s) _) AS waiting,
       (SELECT count(*) FROM (SELECT FROM messages WHERE {LISTED} LIMIT %(most)s) _) AS dead
"""  # noqa: S608 - a constant of ours


class LaneState(StrEnum):
    """The state of a lane at one instant."""

    DUE = "due"
    LEASED = "leased"
    COLLECTING = "collecting"
    """Of a channel that waits for more messages: when it stops to."""
    PARKED = "parked"
    PAUSED = "paused"


class Lane(Value):
    """One lane of a snapshot."""

    user_id: str
    """The member of the sorted set; not a user's id if somebody else wrote it."""
    state: LaneState
    due_in_s: float | None
    """When a worker may take it; negative: it is due since then; None while paused."""
    jobs: int
    worker: str | None = None
    """The worker that holds it; the last turn of a paused lane may still run."""
    fence: int | None = None
    lease_ends_in_s: float | None = None
    """When the lease ends unless it is renewed; it is renewed three times in its life."""


class Worker(Value):
    """A registered worker."""

    name: str
    heartbeat_age_s: float
    lanes: int
    isolation: str
    """`works`, or why no process could be started for a suspect message; empty until that was tried."""
    slots: dict[str, int]
    """Of each kind of lanes that it works; none while it has not said so."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_alive(self) -> bool:
        """Whether its heartbeat is recent."""
        return self.heartbeat_age_s <= HEARTBEAT_MAX_S


class Backlog(Value):
    """How many messages wait and are dead in Postgres, each up to COUNT_MAX."""

    waiting: int
    dead: int


class Snapshot(Value):
    """All lanes at one instant."""

    at: datetime
    total: int
    due: int
    leased: int
    collecting: int
    parked: int
    paused: int
    is_exact: bool
    """False when so many lanes are parked that not all locks were read: some of them may be leased."""
    oldest_wait_s: float
    """How long the lane that waits longest has been due."""
    is_suspended: bool
    """Whether `rq suspend` keeps all workers from leasing."""
    workers: tuple[Worker, ...]
    lanes: tuple[Lane, ...]
    """The first of each state, in that order."""
    backlog: Backlog | None = None
    """None when Postgres was not asked."""

    @property
    def workers_alive(self) -> int:
        """How many workers are alive."""
        return sum(worker.is_alive for worker in self.workers)

    def workers_of(self, kind: str) -> int:
        """How many of them work lanes of a kind."""
        return sum(worker.is_alive and kind in worker.slots for worker in self.workers)


class Survey:
    """Takes snapshots."""

    def __init__(self, lanes: Lanes) -> None:
        self._scripts = lanes.scripts

    def snapshot(self, rows: int = 0, database: Database | None = None) -> Snapshot:
        """Count the lanes, and read the first `rows` of each state; with `database`, count its messages too."""
        answer = self._scripts.run("survey", *_arguments(rows))
        return _snapshot(answer).model_copy(update={"backlog": backlog_of(database) if database else None})

    def numbers_and_snapshot(self) -> tuple[dict[str, int], Snapshot]:
        """Read the counters and count the lanes, in one round trip."""
        numbers, answer = self._scripts.run_many([("numbers", ()), ("survey", _arguments(0))])
        return numbers_in(dict(zip(numbers[::2], numbers[1::2], strict=True))), _snapshot(answer)


def _arguments(rows: int) -> tuple[object, ...]:
    return "", min(rows, ROWS_MAX), LOCKS_MAX, WORKERS_MAX


def _snapshot(answer: bytes) -> Snapshot:
    # A member that somebody else wrote may be anything, even bytes that are not UTF-8.
    found: dict[str, Any] = json.loads(answer.decode(errors="replace"))
    now_ms, redis_ms = float(found["now_ms"]), float(found["redis_ms"])
    return Snapshot(
        at=datetime.fromtimestamp(redis_ms / 1000, UTC),
        total=found["total"],
        due=found["due"],
        leased=found["leased"],
        collecting=found["collecting"],
        parked=found["ahead"] - found["leased"] - found["collecting"],
        paused=found["paused"],
        is_exact=found["looked_at"] == found["ahead"],
        oldest_wait_s=_seconds(now_ms, float(found["oldest_ms"])) if found["oldest_ms"] else 0,
        is_suspended=found["is_suspended"],
        workers=tuple(sorted((_worker(now_ms, *one) for one in found["workers"]), key=lambda one: one.name)),
        lanes=tuple(sorted((_lane(now_ms, *one) for one in found["lanes"]), key=_order)),
    )


def _lane(now_ms: float, state: str, user: str, score: str, jobs: int, *lock: Any) -> Lane:
    worker, fence, ends_ms = lock
    return Lane(
        user_id=user,
        state=LaneState(state),
        due_in_s=None if state == LaneState.PAUSED else _seconds(float(score), now_ms),
        jobs=jobs,
        worker=worker or None,
        fence=int(fence) if fence else None,
        lease_ends_in_s=_seconds(float(ends_ms), now_ms) if ends_ms else None,
    )


def _order(lane: Lane) -> int:
    return list(LaneState).index(lane.state)


def _worker(now_ms: float, name: str, heard_ms: str, lanes: str, isolation: str, slots: str) -> Worker:
    return Worker(
        name=name,
        heartbeat_age_s=max(0.0, _seconds(now_ms, float(heard_ms))),
        lanes=int(lanes) if lanes.isdigit() else 0,
        isolation=isolation,
        slots=_slots(slots),
    )


def _slots(text: str) -> dict[str, int]:
    """Read what a worker has registered; nothing where somebody else has written it."""
    try:
        return SLOTS.validate_json(text)
    except ValidationError:
        return {}


def _seconds(later_ms: float, earlier_ms: float) -> float:
    """Subtract times; one that somebody else wrote may be infinite, which JSON cannot hold."""
    return round(max(-FAR_S, min(FAR_S, (later_ms - earlier_ms) / 1000)), 3)


def backlog_of(database: Database) -> Backlog:
    """Count what waits and what is dead."""
    row = database.row(BACKLOG, {"most": COUNT_MAX})
    assert row is not None  # noqa: S101 - a select without FROM answers one row
    return Backlog(waiting=row.waiting, dead=row.dead)
