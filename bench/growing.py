"""A database that has been used for long: users with sessions and history, written in bulk and not by our calls."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.types.json import Jsonb

from bench.costs import thread_cpu_ms
from bench.errors import BenchError
from bench.stack import CHANNEL, Stack
from onelane.postgres.connection import session_options

TURNS = 25
"""Of each user, with one reply each; the last five are of the open session."""
ENDED_TURNS = 20
LINES_A_USER = 2 * TURNS
USERS_A_BATCH = 2_000
TEXT = "as long as what people write to a bot, more or less"
JOB = {"channel": CHANNEL, "turns": TURNS, "ended": ENDED_TURNS, "text": TEXT}
LOAD = (
    """
    CREATE TEMP TABLE batch ON COMMIT DROP AS
    WITH made AS (
        INSERT INTO users (channel, sender, last_seq, next_seq, version, fence, last_accepted_at)
        SELECT %(channel)s, n::text, %(turns)s, %(turns)s + 1, %(turns)s, 1, now()
          FROM generate_series(%(first)s::integer, %(last)s::integer) n RETURNING id, sender)
    SELECT id AS user_id, sender, new_id() AS ended, new_id() AS open FROM made
    """,
    "INSERT INTO user_aliases (channel, alias, user_id) SELECT %(channel)s, sender, user_id FROM batch",
    """
    INSERT INTO conversation_sessions
           (id, user_id, status, started_at, last_message_at, ended_at, ended_reason, sweep_at)
    SELECT ended, user_id, 'ended', now() - interval '2 d', now() - interval '2 d', now() - interval '41 h', 'timeout',
           now() FROM batch
    UNION ALL
    SELECT open, user_id, 'active', now() - interval '1 h', now(), NULL, NULL, now() + interval '6 h' FROM batch
    """,
    """
    INSERT INTO messages
           (user_id, session_id, direction, seq, turn_seq, ordinal, state, channel, external_id, text, accepted_at)
    SELECT user_id, CASE WHEN nr <= %(ended)s THEN ended ELSE open END, way, CASE way WHEN 'in' THEN nr END, nr,
           ordinal, state, %(channel)s, CASE way WHEN 'in' THEN concat_ws('-', sender, nr) END, %(text)s, now()
      FROM generate_series(1, %(turns)s) nr, batch,
           (VALUES ('in', 0, 'processed'), ('out', 1, 'sent')) line (way, ordinal, state)
     ORDER BY nr, user_id, ordinal
    """,
    """
    INSERT INTO accepted_deliveries (channel, external_id, user_id, message_id, seq, accepted_at)
    SELECT %(channel)s, concat_ws('-', sender, nr), user_id, new_id(), nr, now()
      FROM generate_series(1, %(turns)s) nr, batch
    """,
)
UPDATES = (
    "SELECT sum(n_tup_upd)::bigint, sum(n_tup_hot_upd)::bigint FROM pg_stat_user_tables"
    " WHERE relname IN ('users', 'conversation_sessions', 'messages', 'outbox', 'out_lanes')"
)
FORGET = (
    "WITH gone AS (DELETE FROM inbox RETURNING user_id)"
    " UPDATE users SET waiting = 0, next_seq = last_seq + 1 WHERE id IN (SELECT user_id FROM gone)"
)
WAL = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


def fill(stack: Stack, messages: int, seconds: float) -> int:
    """Write history of so many lines, or as much as fits into the time; return how many users there are."""
    users, ends = 0, time.monotonic() + seconds
    # Rows that are made together fit together: their foreign keys need not be looked up.
    options = "-c synchronous_commit=off -c session_replication_role=replica"
    with psycopg.connect(stack.postgres.url, autocommit=True, options=options) as connection:
        while users * LINES_A_USER < messages and time.monotonic() < ends:
            with connection.transaction():
                for statement in LOAD:
                    connection.execute(statement, {**JOB, "first": users, "last": users + USERS_A_BATCH - 1})
            users += USERS_A_BATCH
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    return users


def postgres_bytes(stack: Stack) -> float:
    """Return what all tables with their indexes take on the disk."""
    return float(stack.value("SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables"))


def redis_bytes(stack: Stack, users: int) -> tuple[float, float]:
    """Return what the first waiting message of a user takes in Redis, and what each further one does."""
    waiting = [uuid4() for _ in range(users)]
    with stack.services() as services:
        sizes = [_redis_memory(stack)]
        for _ in range(2):
            for user in waiting:
                services.lanes.enqueue(user, uuid4())
            sizes.append(_redis_memory(stack))
    stack.redis.flushall()
    empty, one, two = sizes
    return (one - empty) / users, (two - one) / users


def _redis_memory(stack: Stack) -> float:
    return float(stack.redis.info("memory")["used_memory"])


@dataclass(frozen=True)
class Spent:
    """What one call has cost Postgres."""

    cpu_ms: float
    answers: Sequence[Any]


class Backend:
    """One connection, whose process in Postgres is measured."""

    def __init__(self, stack: Stack, pool: Sequence[object]) -> None:
        """`pool` are the users who may be measured, as they call themselves."""
        url = stack.postgres.url
        self.connection = psycopg.connect(url, autocommit=True, prepare_threshold=0, options=session_options(url))
        self._pid = self.connection.info.backend_pid
        self._pool = pool
        self._random = Random()  # noqa: S311 - which users are measured is no secret, and others each time: pages are warm
        self._number = time.time_ns()
        """The last message's; nobody before us has used it."""

    def close(self) -> None:
        """Disconnect."""
        self.connection.close()

    def people(self, how_many: int) -> list[str]:
        """Choose users at random."""
        return [str(one) for one in self._random.sample(self._pool, how_many)]

    def spent(self, query: str, *params: Any) -> Spent:
        """Run a statement."""
        before = thread_cpu_ms(self._pid)
        answers = self.connection.execute(query, params, prepare=True).fetchall()
        return Spent(thread_cpu_ms(self._pid) - before, answers)

    def wal(self) -> float:
        """Return how many bytes of WAL there are so far."""
        return float(self.spent(WAL).answers[0][0])

    def updates(self) -> tuple[int, int]:
        """Count updates so far, and those that were HOT."""
        self.connection.execute("SELECT pg_stat_force_next_flush()")
        updates, hot = self.spent(UPDATES).answers[0]
        return updates, hot

    def forget_waiting(self) -> None:
        """Remove all that waits, as if it had been processed."""
        self.connection.execute(FORGET)

    def accept(self, people: Sequence[str]) -> Spent:
        """Accept a message of each, in one list."""
        items = []
        for person in people:
            self._number += 1
            items.append({"channel": CHANNEL, "senders": [person], "external_id": str(self._number), "text": TEXT})
        return self._ask("accept", items, "accepted")

    def begin(self, users: Sequence[str], fence: int) -> Spent:
        """Begin the next turn of each, without a hint, in one list."""
        return self._ask("begin_turns", [{"user_id": user, "fence": fence} for user in users], "turn")

    def settle(self, turns: Sequence[Any], fence: int) -> Spent:
        """Commit turns that answer what was written, and begin the next of each, in one list."""
        items = [
            {
                "user_id": turn["user"]["id"],
                "fence": fence,
                "version": turn["version"],
                "seqs": [turn["messages"][0]["seq"]],
                "session_id": turn["session"]["id"],
                "effects": {"replies": [{"text": turn["messages"][0]["text"]}]},
                "goes_on": True,
            }
            for turn in turns
        ]
        return self._ask("settle_turns", items, "committed")

    def begin_sends(self, users: Sequence[str], fence: int) -> Spent:
        """Mark the next reply of each as being sent, in one list."""
        return self._ask("begin_sends", [{"user_id": user, "fence": fence} for user in users], "send")

    def settle_sends(self, begun: Sequence[Any], fence: int) -> Spent:
        """Note that replies were accepted, and mark the next of each, in one list."""
        items = [
            {
                "user_id": one["user_id"],
                "fence": fence,
                "reply_id": one["reply"]["id"],
                "attempt": one["reply"]["attempt"],
                "outcome": "accepted",
                "provider_id": one["reply"]["id"],
                "goes_on": True,
            }
            for one in begun
        ]
        return self._ask("settle_sends", items, "settled")

    def _ask(self, function: str, items: Sequence[Any], wanted: str) -> Spent:
        spent = self.spent(f"SELECT {function}(%s, false)", Jsonb(list(items)))
        [[answers]] = spent.answers
        if others := {answer["outcome"] for answer in answers} - {wanted}:
            raise BenchError(f"{function} answered {', '.join(sorted(others))}")
        return Spent(spent.cpu_ms, answers)
