"""Accepting for peers: the same SQL as ours, without our lanes."""

from collections.abc import Sequence

from psycopg.types.json import Jsonb

from bench.stack import CHANNEL
from onelane.db import Database
from onelane.model import Accepted, Delivery, user_id_of

BACKLOG_MAX = 1_000


def accept(database: Database, deliveries: Sequence[Delivery]) -> list[Accepted]:
    """Commit messages in one call."""
    entries = [{"user_id": str(user_id_of(CHANNEL, one.sender)), **one.model_dump(mode="json")} for one in deliveries]
    rows = database.rows("SELECT * FROM accept(%s, %s, %s)", (CHANNEL, Jsonb(entries), BACKLOG_MAX))
    return [Accepted(**row._asdict()) for row in rows]
