"""Check of the fences: the counter in Redis, and what Postgres has stored, are numbers that leases can have had."""

from onelane import keys
from onelane.doctor import sample
from onelane.doctor.finding import Deployment, Finding, ok, warning
from onelane.lanes.scripts import text_of

SHOWN_MAX = 20
FENCES = """
SELECT id, fence, is_fenced(0, fence) AS is_absurd FROM users WHERE id > %(after)s ORDER BY id LIMIT %(most)s
"""
IS_ABSURD = "SELECT is_fenced(0, %s::bigint) AS is_absurd"
DIGITS_MAX = 18
"""What a bigint holds for sure."""


def fences_are_credible(deployment: Deployment) -> Finding:
    """Check that no fence is one that no clock could have seeded. Each is replaced by itself; somebody wrote it."""
    database = deployment.database
    users = sample.read_from(database, FENCES, sample.anywhere(database), sample.USERS_MAX)
    if absurd := [user for user in users.values() if user.is_absurd]:
        return warning(
            f"{len(absurd)} of {len(users)} users looked at have a fence that no lease can have",
            "find out who writes into the table users; the user's next turn replaces it",
            tuple(f"user {user.id}: fence {user.fence}" for user in absurd[:SHOWN_MAX]),
        )
    counter = deployment.lanes.scripts.ask_ours(keys.FENCE, lambda: deployment.lanes.client.get(keys.FENCE))
    if counter is not None and _is_absurd(deployment, text_of(counter)):
        return warning(
            f"the counter of fences in Redis is {text_of(counter)[:40]!r}",
            "find out who writes into this Redis; the next lease replaces it",
        )
    return ok(f"every fence is one that a lease can have had; users looked at: {len(users)}")


def _is_absurd(deployment: Deployment, counter: str) -> bool:
    if not (counter.isascii() and counter.isdecimal() and len(counter) <= DIGITS_MAX):
        return True
    row = deployment.database.row(IS_ABSURD, (counter,))
    return row is None or row.is_absurd
