"""One person is one user, whatever the provider calls them; and no two people are one."""

from collections.abc import Iterator

from tests.chaos.checker.evidence import Evidence
from tests.chaos.checker.violation import Violation

PROMISE = "identity"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Compare who wrote the letters with whose messages they became."""
    for person in evidence.people.values():
        if len(users := dict.fromkeys(person.homes)) > 1:
            yield Violation(PROMISE, person.user_id, None, f"one person is {len(users)} users: {', '.join(users)}")
        if len(person.addresses) > 1:
            yield Violation(PROMISE, person.user_id, None, f"{len(person.addresses)} people are one user")
