"""When all is done nothing is left behind, and the evidence itself is whole."""

from collections.abc import Iterator

from tests.chaos.checker.checks.forgetting import REMEMBERED
from tests.chaos.checker.evidence import Evidence
from tests.chaos.checker.violation import Violation

PROMISE = "leftovers"
TORN_MAX = 20
"""Lines cut off by the kill of their writer; more would be a fault of the recorder."""


def check(evidence: Evidence) -> Iterator[Violation]:
    """Report everything that was found, and that nobody looked."""
    if evidence.leftovers is None:
        yield Violation(PROMISE, None, None, "nobody looked for what the run left behind")
    for name, found in (evidence.leftovers or {}).items():
        for what in found if name != REMEMBERED else ():
            yield Violation(PROMISE, None, None, f"{name}: {what}")
    if not any(person.runs for person in evidence.people.values()):
        yield Violation(PROMISE, None, None, "the bot has noted no run: the recording is broken")
    if evidence.lines_torn > TORN_MAX:
        yield Violation(PROMISE, None, None, f"{evidence.lines_torn} lines of the histories cannot be read")
