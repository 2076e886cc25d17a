"""What must not be in anybody's sessions: `session_anomalies`, asked for a bounded time about a bounded past."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import psycopg

from onelane.errors import StoreUnavailable
from onelane.model import Value
from onelane.postgres.db import Database

WINDOWS: Final = ("5 minutes", "1 hour", "24 hours", "7 days", "100 years")
"""How far back to look."""
SHOWN_MAX: Final = 100

WITHIN: Final = """
SELECT kind, user_id, session_id, at, detail, count(*) OVER () AS total
  FROM session_anomalies WHERE at > clock_timestamp() - %s::interval ORDER BY at DESC LIMIT %s
"""
OF_USER: Final = """
SELECT kind, user_id, session_id, at, detail, count(*) OVER () AS total
  FROM session_anomalies WHERE user_id = %s AND kind <> 'foreign_session' ORDER BY at DESC LIMIT %s
"""
"""A message in another's session is left out: no index leads from a user to the calls of tools."""


class Anomaly(Value):
    """One fault of a user's sessions."""

    kind: str
    user_id: UUID
    session_id: UUID | None
    at: datetime
    detail: str | None
    total: int
    """How many there are, this one among them."""


class Looked(Value):
    """What was found in the widest window that was answered in time."""

    window: str | None
    """None: not even the narrowest was."""
    found: tuple[Anomaly, ...]

    @property
    def total(self) -> int:
        """How many there are, whether or not all are listed."""
        return self.found[0].total if self.found else 0


def look_back(database: Database, budget_s: float, windows: Sequence[str] = WINDOWS, most: int = SHOWN_MAX) -> Looked:
    """Look further and further back, and stop where Postgres needs longer than `budget_s` for all."""
    looked = Looked(window=None, found=())
    for window in windows:
        try:
            looked = Looked(window=window, found=within(database, window, budget_s / len(windows), most))
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, psycopg.errors.QueryCanceled):
                raise
            break
    return looked


def of_user(database: Database, user_id: UUID, most: int = SHOWN_MAX) -> tuple[Anomaly, ...]:
    """List one user's."""
    return tuple(Anomaly(**row._asdict()) for row in database.rows(OF_USER, (user_id, most)))


def within(database: Database, window: str, limit_s: float, most: int) -> tuple[Anomaly, ...]:
    """List the newest of a window; raise StoreUnavailable, caused by QueryCanceled, after `limit_s`."""
    with database.transaction() as connection:
        connection.execute(f"SET LOCAL statement_timeout = {int(limit_s * 1000)}")
        rows = connection.execute(WITHIN, (window, most)).fetchall()
    return tuple(Anomaly(**row._asdict()) for row in rows)
