"""Runs of `onelane migrate` that wait for the guard, as Postgres shows them."""

from datetime import datetime
from typing import Any

from psycopg import Connection

from tests.conftest import eventually

REFUSED = """
SELECT query_start FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'onelane' AND query = 'COMMIT'
"""
"""When the transaction ended in which a run was last refused the guard: then it pauses."""


def refused_twice(database: Connection[Any]) -> None:
    """Wait until the one run beside us was refused twice, and see that it has made nothing."""
    refusals: set[datetime] = set()

    def again() -> bool:
        refusals.update(at for (at,) in database.execute(REFUSED))
        return len(refusals) > 1

    eventually(again)
    assert database.execute("SELECT to_regclass('schema_files')").fetchone() == (None,)
