"""Who is who: a user is found by any identifier that the provider has used for them."""

from uuid import UUID

from onelane.postgres.db import Database
from onelane.storable import is_storable


def user_of(database: Database, channel: str, alias: str) -> UUID | None:
    """Return the user behind an identifier on a channel, or None when nobody has written under it."""
    if not is_storable(alias):
        return None
    row = database.row("SELECT user_id FROM user_aliases WHERE channel = %s AND alias = %s", (channel, alias))
    return row.user_id if row else None
