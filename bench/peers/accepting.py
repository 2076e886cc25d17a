"""Accepting for peers: the same SQL as ours, without our lanes."""

from collections.abc import Sequence

from psycopg.types.json import Jsonb

from bench.stack import CHANNEL
from onelane.deliveries import Accepted, Delivery
from onelane.postgres.db import Database

BACKLOG_MAX = 1_000


def accept(database: Database, deliveries: Sequence[Delivery]) -> list[Accepted]:
    """Commit messages in one call."""
    extra = {"channel": CHANNEL, "backlog_max": BACKLOG_MAX}
    items = [{**one.model_dump(mode="json", exclude_none=True), **extra} for one in deliveries]
    [row] = database.rows("SELECT accept(%s) AS answers", (Jsonb(items),))
    return [Accepted(**one, duplicate=one["outcome"] == "duplicate") for one in row.answers]
