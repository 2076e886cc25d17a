"""Who a user is: how many names, with whom perhaps one, and what the provider said of the owner. No name is shown."""

from datetime import datetime
from uuid import UUID

from onelane.model import Value
from onelane.postgres.db import Database

IDENTITY = """
SELECT (SELECT count(*) FROM user_aliases WHERE user_id = u.id) AS names,
       u.opted_out_at, u.owner_changed_at, u.merged_into,
       ARRAY(SELECT id FROM users WHERE merged_into = u.id ORDER BY id) AS merged,
       ARRAY(SELECT other_id FROM identity_conflicts WHERE user_id = u.id ORDER BY noted_at, other_id) AS conflicts
  FROM users u WHERE u.id = %s
"""


class Identity(Value):
    """A user's identity."""

    names: int
    """How many identifiers mean this user."""
    opted_out_at: datetime | None
    """Since when the person wants no more messages."""
    owner_changed_at: datetime | None
    """Since when somebody else may have the number, and nobody has confirmed the contrary."""
    merged_into: UUID | None
    """The user that has this one's names."""
    merged: tuple[UUID, ...]
    """The users whose names this one has."""
    conflicts: tuple[UUID, ...]
    """Users whose names came together with this one's in one delivery."""


def identity_of(database: Database, user_id: UUID) -> Identity | None:
    """Return who a user is, or None when there is no such user."""
    row = database.row(IDENTITY, (user_id,))
    return Identity(**row._asdict()) if row else None
