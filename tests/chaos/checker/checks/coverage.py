"""A run that is long enough has had every kind of fault that it was to have: what never struck was never tested."""

from collections import Counter
from collections.abc import Iterator

from tests.chaos.checker.evidence import Evidence
from tests.chaos.checker.records import Fault
from tests.chaos.checker.violation import Violation

PROMISE = "coverage"
PLANNED_MIN = 3
"""So many faults of a kind cannot all be missed by chance; those do not count whose place another fault had."""
OF_REQUESTS = frozenset({"api-drops", "api-errors", "api-hangs"})
"""Faults that strike requests: which ones, the journal of who received them tells."""


def check(evidence: Evidence) -> Iterator[Violation]:
    """Look for kinds that were planned often and never came."""
    struck = {fault.name for fault in evidence.faults if has_struck(evidence, fault)}
    taken = Counter(evidence.taken)
    for name, count in evidence.setup.planned.items():
        if count - taken[name] >= PLANNED_MIN and name not in struck:
            yield Violation(PROMISE, None, None, f"{name} was planned {count} times, and never struck anything")


def has_struck(evidence: Evidence, fault: Fault) -> bool:
    """Tell whether something was struck."""
    if fault.name in OF_REQUESTS:
        return any(one.fault and fault.at <= one.at <= fault.until for one in evidence.requests)
    return not fault.is_missed
