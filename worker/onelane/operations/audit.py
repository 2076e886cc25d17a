"""Who did what to whom: what operators do, and what they look at. Never a text, a name or a number of a person.

An act that Postgres carries out is written down in its own transaction, and once, also when its call is repeated.
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from onelane.postgres.connection import Row
from onelane.postgres.db import Database

RECORD: Final = "SELECT record_act(%s, %s, %s, %s, %s)"
WITH_RECORD: Final = """
WITH acted AS MATERIALIZED ({query})
SELECT did, CASE WHEN to_jsonb(did) <> 'false' THEN record_act(%s, %s, %s, %s, %s) END FROM acted
"""


def record(
    database: Database, who: str, act: str, subject: object | None, detail: Mapping[str, object] | None = None
) -> None:
    """Write down what `who` has done to, or seen of, `subject`: a user's id, where it is one."""
    database.rows(RECORD, _values(who, act, subject, detail))


class Entry:
    """One act, to be written down if it is done."""

    def __init__(
        self, database: Database, who: str, act: str, subject: object | None, detail: Mapping[str, object] | None = None
    ) -> None:
        self._database = database
        self._values = _values(who, act, subject, detail)

    def row(self, query: str, params: tuple[Any, ...]) -> Row | None:
        """Run a statement whose column `did` is neither NULL nor false when it did something; return the row."""
        return self._database.row(WITH_RECORD.format(query=query), (*params, *self._values))


def _values(who: str, act: str, subject: object | None, detail: Mapping[str, object] | None) -> tuple[Any, ...]:
    """Name the act, so that it is one row however often it is asked for."""
    plain = {name: str(value) if isinstance(value, UUID) else value for name, value in (detail or {}).items()}
    return uuid4(), who, act, None if subject is None else str(subject), Jsonb(plain)
