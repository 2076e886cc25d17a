"""An operator's own answer to a user: through the outbox, in the session that is open."""

from uuid import UUID

from onelane.bot.reply import Reply
from onelane.errors import BadRequest
from onelane.operations.audit import record
from onelane.operations.users import find_user
from onelane.postgres.db import Database
from onelane.saying import Said, Saying


def answer(database: Database, saying: Saying, user_id: UUID, text: str, key: UUID, *, by: str) -> Said:
    """Say it once under a `key`, however often the button is pressed. Raise Unsendable for what cannot be said."""
    user = find_user(database, user_id)
    if user is None:
        raise BadRequest("user", "there is no such user")
    said = saying.say(user.channel, user_id, Reply(text), f"operator:{key}")
    if not said.duplicate:
        record(database, by, "user_answered", user_id, {"reply_ids": [str(one) for one in said.ids]})
    return said
