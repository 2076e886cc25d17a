"""What a lease's holder does with its lane, at the lease's end above all.

Each call is on its way when its method returns, and never waits: what many ask meanwhile goes in one script call.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import StrEnum
from typing import Any
from uuid import UUID

import redis

from onelane.lanes import jobs
from onelane.lanes.gathering import waiting
from onelane.lanes.scripts import Scripts, text_of
from onelane.model import Lease

BURIAL_TTL_S = 30 * 86_400
BURIED_MAX = 500
"""Dead messages whose jobs and tracebacks Redis keeps: 7 kB each, since a stream begins with 4. Postgres keeps all."""


class Released(StrEnum):
    """What finish did with the lease."""

    GO_ON = "go_on"
    RELEASED = "released"
    FORGOTTEN = "forgotten"
    PAUSED = "paused"
    LOST = "lost"


class Releases:
    """A holder's scripts as methods, each also as one that waits for its answer."""

    def __init__(
        self, client: redis.Redis, kind: str, scripts: Scripts, clock_ms: Callable[[], int] | None = None
    ) -> None:
        self.client = client
        self.kind = kind
        self.scripts = scripts
        self._clock_ms = clock_ms

    def finish_soon(
        self,
        lease: Lease,
        done: Sequence[UUID | str] = (),
        *,
        may_go_on: bool = False,
        has_more: bool = False,
        foreign: int = 0,
        pause: bool = False,
        session_id: UUID | None = None,
        session_ms: int = 0,
        pace_ms: int = 0,
        runs: int = 0,
    ) -> Future[Released]:
        """Take `done` messages off the lane, slide the cached session id, and keep or release the lease."""
        lane = {
            **_end(lease, done, pace_ms, runs),
            "may_go_on": may_go_on,
            "has_more": has_more,
            "foreign": foreign,
            "pause": pause,
            "session": str(session_id or ""),
            "session_ms": session_ms,
        }
        return self.scripts.submit(_released, "finish", self._now(), lane)

    def park_soon(
        self,
        lease: Lease,
        delay_s: float,
        done: Sequence[UUID] = (),
        *,
        has_begun: bool = True,
        pace_ms: int = 0,
        runs: int = 0,
    ) -> Future[bool]:
        """Take `done` messages off the lane and give the lease up until `delay_s` from now; 0 hands the lane back.

        Until something `has_begun`, nobody has counted the death that a take-over found: the next lease finds it, too.
        Return False when the lease was lost.
        """
        lane = {**_end(lease, done, pace_ms, runs), "delay_ms": ms_of(delay_s), "has_begun": has_begun}
        return self.scripts.submit(bool, "park", self._now(), lane)

    finish = waiting(finish_soon)
    park = waiting(park_soon)

    def bury_soon(self, lease: Lease, message_id: UUID, failure: str) -> Future[bool]:
        """Move a dead message's job to the lane's FailedJobRegistry; return False when the lease was lost.

        A job that is buried already, and was put back on the lane since, is left for the reconciler.
        """
        job = jobs.job_of(self.client, self.kind, lease.user_id, message_id)
        fields = jobs.flat(job.to_dict())
        return self.scripts.submit(
            bool,
            "bury",
            self._now(),
            lease.user_id,
            lease.token,
            message_id,
            jobs.now(),
            BURIAL_TTL_S,
            BURIED_MAX,
            len(fields) // 2,
            *fields,
            *jobs.flat(jobs.failure_of(self.client, job, failure)),
        )

    bury = waiting(bury_soon)

    def raise_fence_soon(self, fence: int) -> Future[int]:
        """Lift the fence counter to at least `fence`, unless no lease can have had that; return the counter."""
        return self.scripts.submit(int, "raise_fence", self._now(), fence)

    def jobs_soon(self, user_id: UUID) -> Future[list[str]]:
        """List the ids of the jobs on a lane, oldest first."""
        return self.scripts.submit(_texts, "jobs", user_id)

    raise_fence = waiting(raise_fence_soon)
    jobs = waiting(jobs_soon)

    def _now(self) -> int | str:
        return "" if self._clock_ms is None else self._clock_ms()


def ms_of(seconds: float) -> int:
    """Return whole milliseconds, none below 0."""
    return max(0, round(seconds * 1000))


def _end(lease: Lease, done: Sequence[UUID | str], pace_ms: int, runs: int) -> dict[str, Any]:
    """Describe the end of a lease, as finish.lua and park.lua read it."""
    return {
        "user": str(lease.user_id),
        "token": lease.token,
        "done": [str(message) for message in done],
        "pace_ms": pace_ms,
        "runs": runs,
    }


def _released(answer: bytes | str) -> Released:
    return Released(text_of(answer))


def _texts(answer: Sequence[bytes | str]) -> list[str]:
    return [text_of(part) for part in answer]
