"""Whatever somebody plants in Redis: no page runs it, and none breaks over it."""

import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from onelane import keys
from onelane.deliveries import Accepted
from tests.door import DATA, jobs_of, pages_of, read


class Explosive:
    """Leave a file behind when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.path),))


def test_what_is_planted_in_redis_is_never_unpickled(
    operator: FlaskClient, redis: Redis, dead: list[Accepted], tmp_path: Path
) -> None:
    bomb = pickle.dumps(Explosive(tmp_path / "exploded"))
    planted: dict[Any, Any] = dict.fromkeys(("data", "meta", "result", "exc_info", "description", "timeout"), bomb)
    victims = ["planted", str(dead[0].message_id)]
    queue = keys.queue_name(dead[0].user_id)
    redis.hset("rq:job:planted", mapping={**planted, "status": "failed", "origin": queue, "created_at": "nonsense"})
    redis.zadd(f"rq:failed:{queue}", {"planted": 2e9})
    redis.rpush(f"rq:queue:{queue}", "planted")
    redis.hset(keys.job(victims[1]), mapping=dict.fromkeys(("meta", "result"), bomb))
    redis.sadd("rq:workers", "rq:worker:w")
    redis.hset("rq:worker:w", mapping={"state": bomb, "current_job": "planted", "queues": queue, "birth": bomb})
    for victim in victims:
        for path in pages_of(queue, victim):
            assert operator.get(path).status_code == 200, path
        operator.post(f"/ops/rq/job/{victim}/requeue")
    operator.post(f"/ops/rq/requeue/{queue}")
    assert not (tmp_path / "exploded").exists()
    pickle.loads(bomb)  # the bomb is one
    assert (tmp_path / "exploded").exists()


def test_a_foreign_job_cannot_be_requeued_from_here(operator: FlaskClient, redis: Redis) -> None:
    job = Queue("other", connection=redis, serializer=JSONSerializer).enqueue("os.getcwd")
    redis.zadd("rq:failed:other", {job.id: 2e9})
    redis.delete("rq:queue:other")
    assert operator.post(f"/ops/rq/job/{job.id}/requeue").status_code == 409
    assert operator.post("/ops/rq/requeue/other").json == {"status": "OK", "count": 0}
    assert redis.llen("rq:queue:other") == 0


@pytest.mark.parametrize("job_id", ["missing", "5f0c2a4e-4f1c-4d0a-9c53-0a1b2c3d4e5f", "a" * 300, "..", "%00", "a%2Fb"])
def test_a_job_that_is_gone_is_a_clean_404(operator: FlaskClient, job_id: str) -> None:
    page = operator.get(f"/ops/rq/0/view/job/{job_id}")
    assert page.status_code == 404
    assert operator.get(f"{DATA}/job/{job_id}.json").status_code == 404
    assert operator.post(f"/ops/rq/job/{job_id}/requeue").status_code in {404, 409}


def test_a_job_with_dependencies_is_shown(operator: FlaskClient, redis: Redis) -> None:
    queue = Queue("other", connection=redis, serializer=JSONSerializer)
    first, second = queue.enqueue("os.getcwd"), queue.enqueue("os.getcwd")
    third = queue.enqueue("os.getcwd", depends_on=[first, second])
    redis.delete(f"rq:job:{first.id}")
    shown = read(operator, f"job/{third.id}")
    assert dict(zip(shown["depends_on"], shown["depends_on_status"], strict=True)) == {
        first.id: "expired",
        second.id: "active",
    }
    assert [job["id"] for job in jobs_of(operator, "other", "deferred")] == [third.id]


@pytest.mark.parametrize(
    "page",
    [
        "x/queued/8/asc/1",
        "q/unknown/8/asc/1",
        "q/queued/0/asc/1",
        "q/queued/999/asc/1",
        "q/queued/8/up/1",
        "q/queued/8/asc/0",
        "q/queued/8/asc/99999999999",
        "q/queued/-1/asc/1",
        "q';alert(1);'/queued/8/asc/1",
        "q%5C/queued/8/asc/1",
        "%3Cscript%3E/queued/8/asc/1",
    ],
)
def test_an_address_that_its_pages_would_not_build_is_a_404(operator: FlaskClient, page: str) -> None:
    expected = 200 if page.startswith("x/") else 404
    assert operator.get(f"/ops/rq/0/view/jobs/{page}").status_code == expected
    assert operator.get(f"{DATA}/jobs/{page}.json").status_code == expected


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
]
HOSTILE += ["{{7*7}}<%= 7*7 %>", "\u202egnp.exe", "\U0001f600", "a\x00b\x1b[31m", "a/../b?c#d", "\\';alert(1)//"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_strings_leave_escaped_whatever_they_name(operator: FlaskClient, redis: Redis, name: str) -> None:
    redis.sadd("rq:queues", f"rq:queue:{name}")
    redis.rpush(f"rq:queue:{name}", name)
    redis.rpush("rq:queue:q", "job", name)
    fields: dict[Any, Any] = {
        "description": name,
        "origin": name,
        "status": name,
        "created_at": name,
        "dependency_ids": json.dumps([name]),
    }
    for job in ("job", name):
        redis.hset(f"rq:job:{job}", mapping=fields)
    redis.sadd("rq:workers", f"rq:worker:{name}")
    redis.hset(f"rq:worker:{name}", mapping={"state": name, "queues": name, "version": name, "birth": name})
    listed = read(operator, "jobs/q/queued/8/asc/1")
    for job in listed["jobs"]:
        job.pop("description")  # its script escapes this one
    answers = [listed, *(read(operator, f"{tail}") for tail in ("queues", "workers", "job/job"))]
    for text in _strings(answers):
        assert not re.search(r"[<>\"'\x00-\x1f\u202e]", text), text
    assert len(listed["jobs"]) == (2 if re.fullmatch(r"[\w-]+", name, re.ASCII) else 1)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _strings(entry)


def test_keys_of_the_wrong_type_count_as_empty(operator: FlaskClient, redis: Redis) -> None:
    redis.sadd("rq:queues", "rq:queue:q")
    redis.sadd("rq:workers", "rq:worker:w")
    for key in ("rq:queue:q", "rq:failed:q", "rq:worker:w", "rq:job:j"):
        redis.set(key, "x")
    for path in ("queues.json", "workers.json", "jobs/q/queued/8/asc/1.json", "jobs/q/failed/8/asc/1.json"):
        assert operator.get(f"{DATA}/{path}").status_code == 200
    assert operator.get(f"{DATA}/job/j.json").status_code == 404
