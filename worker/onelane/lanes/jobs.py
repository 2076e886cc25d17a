"""The RQ jobs of a lane's messages or replies: what RQ's tools show, and nothing that any worker runs."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import redis
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from onelane import keys

FUNCTION = "onelane.job"
"""What a job names as its function; no worker of ours ever looks at it.

So short that no value of a job is longer than 64 bytes: Redis then keeps it in half the room.
"""

FAILURE_MAX = 4_000
"""Characters of a traceback that RQ's tools show; Postgres has all of it."""


NOUNS: Final = {keys.IN: "turn", keys.OUT: "reply"}
"""What a job of a kind is, as RQ's tools show it."""

OF_ALL = ("status", "queued", "result_ttl", "0")
"""Fields and values, by turns, that the hashes of all jobs have."""


def own_fields(kind: str, message_id: UUID) -> list[str]:
    """List the fields and values, by turns, that a job has of its own, without its lane's, as made now.

    `job_of` makes the same with RQ, for ten times as much; what RQ compresses it also reads as it is.
    """
    made_at = now()
    return [
        *("data", f'["{FUNCTION}",null,["{message_id}"],{{}}]'),
        *("description", f"{NOUNS[kind]} {message_id}"),
        *("created_at", made_at),
        *("enqueued_at", made_at),
    ]


def job_of(client: redis.Redis, kind: str, user_id: UUID, message_id: UUID) -> Job:
    """Make the job of a message. It holds the id, and no text of anybody."""
    job = Job.create(
        FUNCTION,
        args=[str(message_id)],
        id=str(message_id),
        connection=client,
        origin=keys.queue_name(user_id, kind),
        description=f"{NOUNS[kind]} {message_id}",
        status=JobStatus.QUEUED,
        result_ttl=0,
        serializer=JSONSerializer,
    )
    job.enqueued_at = job.created_at
    return job


def failure_of(client: redis.Redis, job: Job, failure: str) -> dict[str, Any]:
    """Make the fields of the job's result, as RQ stores a traceback."""
    exc_string = failure[-FAILURE_MAX:]  # its end names the error
    fields: dict[str, Any] = Result(
        job.id, Result.Type.FAILED, client, exc_string=exc_string, serializer=JSONSerializer
    ).serialize()
    return fields


def now() -> str:
    """Return the time as RQ writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def flat(fields: dict[str, Any]) -> list[Any]:
    """List a hash as a script takes it: each name, followed by its value."""
    return [part for pair in fields.items() for part in pair]
