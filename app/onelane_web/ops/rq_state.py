"""Queues, jobs and workers in RQ's keys, read as plain text and within bounds.

RQ's own classes are not used: they unpickle what they read, ask once for each queue, and fail for a whole list when one
job is broken. A key of the wrong type, or with unreadable contents, counts as empty.
"""

import json
import re
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, TypeVar
from zlib import decompressobj

import redis
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import requeue_job
from rq.serializers import JSONSerializer

from onelane import keys
from onelane.errors import NotRequeued
from onelane.lanes.scripts import text_of

QUEUES_MAX: Final = 500
"""Queues listed; those with failures first."""
WORKERS_MAX: Final = 500
SCANNED: Final = 500
"""Members of a set asked for at once."""
NAMES_MAX: Final = 20_000
"""Names of workers looked at, most of them dead."""
DEPENDENCIES_MAX: Final = 50
REQUEUE_MAX: Final = 1_000
TEXT_MAX: Final = 50_000
PAGE_S: Final = 8.0
"""For what one page asks of Redis again and again: a slow Redis must not hold a thread of the web for longer."""

REGISTRIES: Final = keys.RQ_REGISTRY_PREFIXES
QUEUED: Final = "queued"
JOB_FIELDS: Final = ("created_at", "enqueued_at", "started_at", "ended_at", "origin", "status", "description")
WORKER_FIELDS: Final = ("state", "queues", "last_heartbeat", "birth", "pid", "hostname", "version", "python_version")
JOB_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")

# Control characters, other line ends, and characters that change the direction of the text after them.
UNSHOWABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

Row = dict[str, Any]
Thing = TypeVar("Thing")


class RqState:
    """Reads RQ's keys, and requeues dead messages."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def queue_names(self) -> list[str]:
        """Return the names of at most QUEUES_MAX queues; those with dead messages come before others are left out."""
        found = set(self._with_failures())
        for key in self._members(keys.RQ_QUEUES):
            if len(found) >= QUEUES_MAX:
                break
            found.add(text_of(key).removeprefix(keys.RQ_QUEUE_PREFIX))
        return sorted(found)

    def _members(self, key: str) -> Iterator[bytes]:
        """Read a set, for PAGE_S at most."""
        for page in _within(PAGE_S, self._pages(key)):
            yield from page

    def _pages(self, key: str) -> Iterator[list[bytes]]:
        cursor = None
        while cursor != 0:
            answer: Any = self._client.sscan(key, cursor or 0, count=SCANNED)
            cursor, page = answer
            yield page

    def _with_failures(self) -> list[str]:
        """Return lanes with a dead message or reply. What was requeued is cleaned late: `rq:queues` is asked too."""
        lanes = [lane for kind in keys.KINDS for lane in self._with_burials(kind)]
        are_listed: Any = self._client.smismember(keys.RQ_QUEUES, lanes) if lanes else []
        return [
            lane.removeprefix(keys.RQ_QUEUE_PREFIX)
            for lane, is_listed in zip(lanes, are_listed, strict=True)
            if is_listed
        ]

    def _with_burials(self, kind: str) -> list[str]:
        buried: Any = self._client.zrandmember(keys.buried(kind), QUEUES_MAX // 2 // len(keys.KINDS))
        return [keys.queue(user, kind) for user in {text_of(member).partition(" ")[0] for member in buried}]

    def queues(self) -> tuple[list[Row], int]:
        """Count the jobs of each listed queue; return also how many queues are not listed."""
        names = self.queue_names()
        with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.llen(keys.RQ_QUEUE_PREFIX + name)
                for key in REGISTRIES.values():
                    pipeline.zcard(key + name)
            pipeline.scard(keys.RQ_QUEUES)
            *counts, queues = (_number(answer) for answer in pipeline.execute(raise_on_error=False))
        width = 1 + len(REGISTRIES)
        rows = [
            {"name": name, **dict(zip((QUEUED, *REGISTRIES), counts[i * width : (i + 1) * width], strict=True))}
            for i, name in enumerate(names)
        ]
        return rows, max(0, queues - len(names))

    def job_ids(self, queue: str, registry: str, first: int, count: int, *, descending: bool) -> tuple[list[str], int]:
        """Return a page of job ids, and how many there are."""
        key = keys.RQ_QUEUE_PREFIX + queue if registry == QUEUED else REGISTRIES[registry] + queue
        try:
            total = self._client.llen(key) if registry == QUEUED else self._client.zcard(key)
            start, stop = (total - first - count, total - first - 1) if descending else (first, first + count - 1)
            if stop < 0:
                return [], total
            page: Any = self._client.lrange if registry == QUEUED else self._client.zrange
            ids = [text_of(entry).partition(":")[0] for entry in page(key, max(0, start), stop)]
        except redis.exceptions.ResponseError:
            return [], 0
        return ids[::-1] if descending else ids, total

    def jobs(self, ids: Sequence[str]) -> list[Row | None]:
        """Read jobs; None for one that is gone or cannot be read."""
        with self._client.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                pipeline.hmget(keys.job(job_id), *JOB_FIELDS, "dependency_ids")
                pipeline.exists(keys.job(job_id))
                pipeline.xrevrange(keys.results(job_id), count=1)
            answers = pipeline.execute(raise_on_error=False)
        return [_job(*entry) for entry in zip(ids, answers[::3], answers[1::3], answers[2::3], strict=True)]

    def existing(self, ids: Sequence[str]) -> list[bool]:
        """Return which of the jobs exist."""
        with self._client.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                pipeline.exists(keys.job(job_id))
            return [answer == 1 for answer in pipeline.execute(raise_on_error=False)]

    def workers(self) -> list[Row]:
        """Read the workers that are alive."""
        listed = islice(self._members(keys.RQ_WORKERS), NAMES_MAX)
        names = [text_of(key).removeprefix(keys.RQ_WORKER_PREFIX) for key in listed]
        with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hmget(keys.worker(name), *WORKER_FIELDS)
            answers = pipeline.execute(raise_on_error=False)
        alive = [entry for entry in zip(names, answers, strict=True) if _has_any(entry[1])][:WORKERS_MAX]
        heard = self._heard([name for name, _ in alive])
        return [_worker(*entry) | heard.get(entry[0], {}) for entry in sorted(alive)]

    def _heard(self, names: list[str]) -> dict[str, Row]:
        """Return when our workers were heard, by Redis' clock; of others only their own clocks' word is known."""
        try:
            scores: Any = self._client.zmscore(keys.HEARTBEATS, names) if names else []
        except redis.exceptions.ResponseError:
            return {}
        return {
            name: {"last_heartbeat": datetime.fromtimestamp(score / 1000, UTC).isoformat()}
            for name, score in zip(names, scores, strict=True)
            if score is not None
        }

    def requeue(self, job_id: str) -> None:
        """Put a dead message's job back on its lane, as RQ does; the reconciler finds it by its mark `buried`."""
        try:
            if not self._client.hexists(keys.job(job_id), "buried"):
                raise NotRequeued("this job is not a dead message of ours, or has been answered")
            requeue_job(job_id, self._client, serializer=JSONSerializer)
        except (NoSuchJobError, InvalidJobOperation, redis.exceptions.ResponseError, ValueError) as error:
            raise NotRequeued("it has been requeued already, or cannot be read") from error

    def requeue_all(self, queue: str) -> int:
        """Requeue the dead messages of a lane, at most REQUEUE_MAX and for PAGE_S; return how many."""
        ids, _ = self.job_ids(queue, "failed", 0, REQUEUE_MAX, descending=False)
        return sum(map(self._is_requeued, _within(PAGE_S, ids)))

    def _is_requeued(self, job_id: str) -> bool:
        try:
            self.requeue(job_id)
        except NotRequeued:
            return False
        return True


def _within(seconds: float, things: Iterable[Thing]) -> Iterator[Thing]:
    """Yield of `things` what there is time for, and the first in any case."""
    ends = time.monotonic() + seconds
    for thing in things:
        yield thing
        if time.monotonic() >= ends:
            return


def showable(text: str) -> str:
    """Replace control and bidirectional characters."""
    return UNSHOWABLE.sub("\ufffd", text)


def _job(job_id: str, fields: Any, exists: Any, results: Any) -> Row | None:
    if exists != 1 or isinstance(fields, Exception) or not JOB_ID.fullmatch(job_id):
        return None
    *plain, dependencies = fields
    row: Row = {name: _shown(value) for name, value in zip(JOB_FIELDS, plain, strict=True)}
    row |= {name: _date(row[name]) for name in row if name.endswith("_at")}
    return {**row, "id": job_id, "exc_info": _traceback(results), "depends_on": _job_ids(dependencies)}


def _worker(name: str, fields: Iterable[Any]) -> Row:
    row: Row = {field: _shown(value) or "" for field, value in zip(WORKER_FIELDS, fields, strict=True)}
    return {**row, "name": showable(name), "queues": [queue for queue in row["queues"].split(",") if queue]}


def _has_any(fields: Any) -> bool:
    """Return whether a registered worker's hash still exists: that of a dead worker expires."""
    return isinstance(fields, list) and any(fields)


def _traceback(results: Any) -> str | None:
    """Read the last result's traceback: base64 of a compressed text, at most TEXT_MAX of it."""
    try:
        [(_, result)] = results
        return _shown(decompressobj().decompress(b64decode(result[b"exc_string"]), TEXT_MAX))
    except Exception:  # noqa: BLE001 - whatever is wrong with it, there is no traceback to show
        return None


def _job_ids(value: Any) -> list[str]:
    try:
        ids = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        return []
    return [str(i) for i in ids if JOB_ID.fullmatch(str(i))][:DEPENDENCIES_MAX] if isinstance(ids, list) else []


def _date(text: str | None) -> str | None:
    """Return ISO dates, None for anything else."""
    try:
        return datetime.fromisoformat(text).isoformat() if text else None
    except ValueError:
        return None


def _number(answer: Any) -> int:
    return answer if isinstance(answer, int) else 0


def _shown(value: bytes | None) -> str | None:
    return None if value is None else showable(text_of(value[:TEXT_MAX]))
