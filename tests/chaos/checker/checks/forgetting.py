"""Of whom the operator has forgotten, and of sessions that are kept no longer, nothing is left anywhere."""

from collections.abc import Iterator

from tests.chaos.checker.evidence import Evidence
from tests.chaos.checker.violation import Violation

PROMISE = "forgetting"
REMEMBERED = "remembered"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Report what was found of them, in what table or key."""
    for what in (evidence.leftovers or {}).get(REMEMBERED, ()):
        yield Violation(PROMISE, None, None, what)
