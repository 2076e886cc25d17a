"""What a run must not leave behind, looked for when its processes have been asked to stop: each list must be empty.

The two servers still run. Keys are judged by the catalogue in `worker/onelane/keys.py`: one that it does not know, or
that should be gone when nothing waits, is a finding.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import redis

from onelane import keys
from onelane.dev.embedded.child import command_line
from onelane.lanes.scripts import text_of
from tests.chaos.history import HISTORY, read
from tests.chaos.service.dynos import all_pids
from tests.chaos.service.stack import WEB_NAMES, WORKER_NAMES, Folder
from tests.chaos.traffic.speech import CANARY, PHONE_PREFIX, SCOPED_PREFIX, SENDER_PREFIX, SLACK_PREFIX

CANARIES = tuple(text.encode() for text in (CANARY, SENDER_PREFIX, PHONE_PREFIX, SCOPED_PREFIX, SLACK_PREFIX))
WAKE_MAX = 64
SHOWN_MAX = 20
LINE_MAX = 2_000
UNEXPECTED = frozenset({"process_crashed", "slot_failed", "request_failed", "task_failed"})
"""Log events that say: an error that nobody expected."""
DELIVERIES, HASHED = "accepted_deliveries", "sha256:"
"""What is kept of a forgotten person's deliveries, so that a redelivery is known: a hash, and ids that mean nothing."""
TRACEBACK = b"Traceback (most recent call last)"
STAYS, RUNS_OUT, IS_OF_THE_DEAD, GOES = "stays", "runs out", "is of the dead", "goes"
UUID = "[0-9a-f-]{36}"
LIVES: Mapping[str, str] = {
    "wake:(in|out)|instance|fence|numbers|minutes|heartbeats|rq:workers": STAYS,
    "beat:.+|counted:.+|lease:.+|duty:.+|reconciled:.+|rq:worker:.+|rq:workers:.+": RUNS_OUT,
    f"session:user:{UUID}|collect:{UUID}|newer:.+|unsigned:.+": RUNS_OUT,
    f"rq:job:{UUID}|rq:results:{UUID}|rq:failed:(user|reply):{UUID}|rq:queues|buried:(in|out)": IS_OF_THE_DEAD,
    f"lanes:(in|out)|unsure|lock:(in|out):{UUID}|rq:queue:(user|reply):{UUID}|cursor:(in|out)": GOES,
}
"""What becomes of a key once every message is terminal, by the key's form."""


def collect(folder: Folder, database_url: str, redis_url: str, bad_ends: list[str]) -> dict[str, list[str]]:
    """Look everywhere; `bad_ends` are processes that did not end as they should."""
    with (
        psycopg.connect(database_url, autocommit=True) as database,
        redis.Redis.from_url(redis_url, socket_timeout=10) as client,
    ):
        found = {
            "bad_ends": bad_ends,
            "orphans": _orphans(folder),
            "waiting_messages": _rows(database, "SELECT user_id, seq FROM inbox"),
            "waiting_replies": _rows(database, "SELECT user_id, turn_seq, ordinal, state FROM outbox"),
            "open_transactions": _rows(
                database,
                "SELECT pid, state, query FROM pg_stat_activity"
                " WHERE xact_start IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
            ),
            "redis_keys": list(_keys(client, database)),
            "canaries_in_redis": list(_canaries_in_redis(client)),
            "remembered": list(_remembered(database, client, folder.history)),
            "canaries_in_logs": list(_in_logs(folder.logs, lambda line: any(one in line for one in CANARIES))),
            "unexpected_errors": list(_in_logs(folder.logs, _is_unexpected)),
        }
    return {name: _shortened(lines) for name, lines in found.items()}


def _remembered(database: psycopg.Connection, client: redis.Redis, history: Path) -> Iterator[str]:
    """Find where something is left of whom nothing may be left: their words, or their id."""
    told = [one for who in ("provider", "harness") for one in read(history, who) if one["kind"] == "forgotten"]
    users = sorted({one["user_id"] for one in told if one["who"] == "provider"})
    words = sorted({re.escape(word) for one in told for word in one["words"]})
    if not (words or users):
        return
    for table in _rows(database, "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"):
        query = f"SELECT left(line::text, 300) FROM {table} AS line WHERE line::text ~ %s LIMIT {SHOWN_MAX}"
        for [line] in database.execute(query.encode(), ("|".join([*words, *users]),)):
            if table != DELIVERIES or HASHED not in line:
                yield f"{table} has {line}"
    yield from _remembered_in_redis(client, [user.encode() for user in users])


def _remembered_in_redis(client: redis.Redis, users: Sequence[bytes]) -> Iterator[str]:
    for key in client.scan_iter(count=1_000):
        if any(user in key for user in users):
            yield f"{key!r} is a key of who was forgotten"
        elif any(user in part for part in _flat(_value(client, key)) for user in users):
            yield f"{key!r} has who was forgotten"


def is_clean(folder: Folder, database_url: str, redis_url: str) -> bool:
    """Answer whether only that is left that may be: some goes with the next rounds of the workers' duties."""
    with (
        psycopg.connect(database_url, autocommit=True) as database,
        redis.Redis.from_url(redis_url, socket_timeout=10) as client,
    ):
        return not any(_keys(client, database)) and not any(_remembered(database, client, folder.history))


def _rows(database: psycopg.Connection, query: str) -> list[str]:
    return [" ".join(map(str, row)) for row in database.execute(query)]


def _orphans(folder: Folder) -> list[str]:
    """Find processes that have our mark in their environment."""
    mark = f"{HISTORY}={folder.history}".encode()
    found = []
    for pid in all_pids():
        with suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(f"{pid} {' '.join(command_line(pid))}")
    return found


def _keys(client: redis.Redis, database: psycopg.Connection) -> Iterator[str]:
    """Judge all keys; what Redis has evicted may have left the rest of it behind."""
    has_dead = bool(database.execute("SELECT FROM messages WHERE state IN ('dead', 'failed') LIMIT 1").fetchall())
    has_dead |= bool(client.info("stats")["evicted_keys"])
    if (tokens := client.llen(keys.wake())) > WAKE_MAX:
        yield f"wake has {tokens} tokens"
    for key in client.scan_iter(count=1_000):
        life = _life(key.decode(errors="replace"))
        if life is None:
            yield f"{key!r} is unknown"
        elif life == RUNS_OUT and client.ttl(key) == -1:
            yield f"{key!r} has no TTL"
        elif life == GOES or (life == IS_OF_THE_DEAD and not has_dead):
            yield f"{key!r} ({text_of(client.type(key))}) should be gone"


def _life(key: str) -> str | None:
    return next((life for form, life in LIVES.items() if re.fullmatch(form, key)), None)


def _canaries_in_redis(client: redis.Redis) -> Iterator[str]:
    for key in client.scan_iter(count=1_000):
        parts = [key, *_flat(_value(client, key))]
        if any(canary in part for part in parts for canary in CANARIES):
            yield repr(key)


def _value(client: redis.Redis, key: bytes) -> Any:
    read: Mapping[bytes, Callable[[], Any]] = {
        b"string": lambda: client.get(key),
        b"hash": lambda: client.hgetall(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: list(client.smembers(key)),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"stream": lambda: client.xrange(key),
        b"none": lambda: None,
    }
    kind: Any = client.type(key)
    return read[kind]()


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        yield from _flat([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)


def _in_logs(folder: Path, is_it: Callable[[bytes], bool]) -> Iterator[str]:
    for path in sorted(path for name in (*WEB_NAMES, *WORKER_NAMES) for path in folder.glob(f"{name}.*.log")):
        for line in path.read_bytes().splitlines():
            if is_it(line):
                yield f"{path.name}: {line.decode(errors='replace')[:LINE_MAX]}"


def _is_unexpected(line: bytes) -> bool:
    """Recognise an error of ours. A handler's has a traceback too, within the event that says so."""
    try:
        fields = json.loads(line)
    except ValueError:
        return TRACEBACK in line
    return isinstance(fields, dict) and fields.get("event") in UNEXPECTED


def _shortened(lines: list[str]) -> list[str]:
    hidden = len(lines) - SHOWN_MAX
    return [*lines[:SHOWN_MAX], f"… and {hidden} more"] if hidden > 0 else lines
