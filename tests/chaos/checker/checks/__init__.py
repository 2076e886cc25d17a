"""The promises, one file a group. A check takes the evidence and yields what contradicts its promise.

A check never says "broken" of what the service may do: handlers run at least once, a commit counts although nobody
heard its answer, a late answer is noted late. So the database's own times decide wherever it has some, and an event of
a history only tells by when something had happened (`at`), or that it had not before (`since`).
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import inf

from tests.chaos.checker.checks import (
    acceptance,
    batches,
    blame,
    calls,
    calm,
    coverage,
    echoes,
    effects,
    escalation,
    fences,
    forgetting,
    identity,
    intake,
    leftovers,
    order,
    overlaps,
    pauses,
    provider,
    recovery,
    runs,
    sessions,
    stuck,
)
from tests.chaos.checker.evidence import Evidence
from tests.chaos.checker.violation import Violation

Check = Callable[[Evidence], Iterable[Violation]]

CHECKS: tuple[Check, ...] = tuple(
    module.check
    for module in (
        acceptance,
        identity,
        order,
        batches,
        calls,
        effects,
        fences,
        sessions,
        escalation,
        echoes,
        pauses,
        runs,
        provider,
        recovery,
        overlaps,
        stuck,
        blame,
        intake,
        calm,
        coverage,
        forgetting,
        leftovers,
    )
)
EACH_MAX = 100
"""Of each check: a broken promise is often broken a thousand times."""


def all_violations(evidence: Evidence) -> list[Violation]:
    """Return what every check finds, the earliest first."""
    found = [violation for check in CHECKS for violation in islice(_finished(check, evidence), EACH_MAX)]
    return sorted(found, key=lambda violation: inf if violation.at is None else violation.at)


def _finished(check: Check, evidence: Evidence) -> Iterator[Violation]:
    """Run a check to its end: evidence that it cannot make sense of is a finding, and hides no other check's."""
    try:
        yield from check(evidence)
    except (AssertionError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        promise = check.__module__.rpartition(".")[2]
        yield Violation(promise, None, None, f"the check made no sense of the evidence: {error!r}")
