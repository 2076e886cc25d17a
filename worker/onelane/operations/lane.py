"""One user's lane: its state in Redis and in Postgres, side by side."""

from typing import Any
from uuid import UUID

from onelane import keys
from onelane.errors import LanesUnavailable
from onelane.lanes import clock
from onelane.lanes.lanes import Lanes
from onelane.model import Value
from onelane.operations.snapshot import Lane, LaneState
from onelane.operations.users import SessionRecord, UserRecord, WaitingMessage, sessions_of, waiting_of
from onelane.postgres.db import Database


class LaneView(Value):
    """A user's lane, session and waiting messages."""

    user: UserRecord
    lane: Lane | None
    """None when there is no work."""
    redis: str | None
    """Why Redis did not answer; None when it did."""
    cached_session: str | None = None
    cached_for_s: float | None = None
    buried_jobs: int = 0
    session: SessionRecord | None
    """The open one."""
    waiting: tuple[WaitingMessage, ...]


def view_lane(database: Database, lanes: Lanes, user: UserRecord, most: int) -> LaneView:
    """Read one lane, its open session, and up to `most` waiting messages."""
    newest = sessions_of(database, user.id, 1)
    view = LaneView(
        user=user,
        lane=None,
        redis=None,
        session=next((session for session in newest if session.status != "ended"), None),
        waiting=tuple(waiting_of(database, user.id, most)),
    )
    try:
        return view.model_copy(update=_in_redis(lanes, user.id))
    except LanesUnavailable as error:
        return view.model_copy(update={"redis": str(error)})


def lane_of(lanes: Lanes, user_id: UUID) -> Lane | None:
    """Read a user's lane of either kind; None when there is no work. Raise LanesUnavailable."""
    found: Lane | None = _in_redis(lanes, user_id)["lane"]
    return found


def _in_redis(lanes: Lanes, user_id: UUID) -> dict[str, Any]:
    now_ms = clock.read_ms(lanes.scripts)
    score, lock, jobs, session, session_ms, buried, collects = lanes.scripts.ask(lambda: _all_about(lanes, user_id))
    return {
        "lane": None
        if score is None
        else _lane(user_id, now_ms, score, jobs, lock, collects=lanes.kind == keys.IN and bool(collects)),
        "cached_session": session.decode() if session else None,
        "cached_for_s": session_ms / 1000 if session_ms > 0 else None,
        "buried_jobs": buried,
    }


def _all_about(lanes: Lanes, user_id: UUID) -> list[Any]:
    with lanes.client.pipeline(transaction=False) as pipeline:  # a full Redis refuses transactions
        pipeline.zscore(keys.lanes(lanes.kind), str(user_id))
        pipeline.hmget(keys.lock(user_id, lanes.kind), "worker", "fence", "until")
        pipeline.llen(keys.queue(user_id, lanes.kind))
        pipeline.get(keys.session(user_id))
        pipeline.pttl(keys.session(user_id))
        pipeline.zcard(keys.failed(user_id, lanes.kind))
        pipeline.exists(keys.collect(user_id))
        answers: list[Any] = pipeline.execute()
    return answers


def _lane(user_id: UUID, now_ms: float, score: float, jobs: int, lock: list[bytes | None], *, collects: bool) -> Lane:
    worker, fence, ends = (part.decode() if part else None for part in lock)
    is_held = float(ends or 0) > now_ms
    due_in_s = None if score == float("inf") else round((score - now_ms) / 1000, 3)
    return Lane(
        user_id=str(user_id),
        state=_state(due_in_s, is_held=is_held, collects=collects),
        due_in_s=due_in_s,
        jobs=jobs,
        worker=worker if is_held else None,
        fence=int(fence) if fence and is_held else None,
        lease_ends_in_s=round((float(ends) - now_ms) / 1000, 3) if ends and is_held else None,
    )


def _state(due_in_s: float | None, *, is_held: bool, collects: bool) -> LaneState:
    if due_in_s is None:
        return LaneState.PAUSED
    if is_held:
        return LaneState.LEASED
    if due_in_s <= 0:
        return LaneState.DUE
    return LaneState.COLLECTING if collects else LaneState.PARKED
