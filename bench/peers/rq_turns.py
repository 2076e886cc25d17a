"""What a stock RQ job does for one message: get the session, handle, commit, with its user's redis-py Lock held.

A forked work-horse must not use its parent's connections, so each makes its own, as every job of a stock worker does
that talks to Postgres; in a SimpleWorker they last.
"""

import os
from functools import cache
from typing import Any

import psycopg
import redis
from psycopg.types.json import Jsonb
from redis.lock import Lock

from bench.handlers import handled
from onelane.postgres.connection import session_options

LOCK_TTL_S = float(os.environ.get("LOCK_TTL_S", "15"))
LOCK_PATIENCE_S = 120


def take_turn(user_id: str, message_id: str, seq: int, text: str) -> None:
    """Process a message under its user's lock."""
    with Lock(_redis(), f"lock:{user_id}", timeout=LOCK_TTL_S, blocking_timeout=LOCK_PATIENCE_S):
        take_turn_unlocked(user_id, message_id, seq, text)


def take_turn_unlocked(user_id: str, _message_id: str, seq: int, text: str) -> None:
    """Process a message; the caller makes sure that its user has only this turn."""
    postgres = _postgres()
    [session_id] = _row(postgres, "SELECT get_or_create_session(%s)", user_id)
    [version] = _row(postgres, "SELECT version FROM users WHERE id = %s", user_id)
    turn = {
        "user_id": user_id,
        "fence": 0,
        "version": version,
        "seqs": [seq],
        "session_id": str(session_id),
        "effects": {"replies": [{"text": handled(user_id, seq, text)}]},
    }
    _row(postgres, "SELECT settle_turns(%s)", Jsonb([turn]))


def _row(postgres: psycopg.Connection[Any], query: str, *params: object) -> Any:
    return postgres.execute(query, params).fetchone()


@cache
def _postgres() -> psycopg.Connection[Any]:
    url = os.environ["DATABASE_URL"]
    return psycopg.connect(url, autocommit=True, prepare_threshold=0, options=session_options(url))


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(os.environ["REDIS_URL"])
