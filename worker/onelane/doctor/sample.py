"""Samples: rows by user from anywhere on, so that a check reads little of a large deployment."""

import random
from typing import Final
from uuid import UUID

from onelane.postgres.connection import Row
from onelane.postgres.db import Database

USERS_MAX: Final = 10_000
"""How many users a check looks at in one statement; when there are fewer, all."""
FIRST_AND_LAST: Final = (
    "(SELECT id FROM users ORDER BY id LIMIT 1) UNION ALL (SELECT id FROM users ORDER BY id DESC LIMIT 1)"
)
FIRST: Final = UUID(int=0)


def anywhere(database: Database) -> UUID:
    """Choose an id as `new_id()` makes one: an instant between the first user's and the last's, then random bits."""
    instants = [row.id.int >> 80 for row in database.rows(FIRST_AND_LAST)] or [0]
    instant = min(instants) + random.getrandbits(48) % (max(instants) - min(instants) + 1)
    return UUID(int=instant << 80 | 7 << 76 | random.getrandbits(76))


def read_from(database: Database, query: str, start: UUID, most: int) -> dict[UUID, Row]:
    """Read at most `most` rows after `start`, by user; when too few follow, go on from the first.

    The query gives rows in the order of their users, whose id is the first column, `after` one and at most `most`.
    """
    rows = database.rows(query, {"after": start, "most": most})
    if left := most - len(rows):
        rows += database.rows(query, {"after": FIRST, "most": left})
    return {row[0]: row for row in rows}
