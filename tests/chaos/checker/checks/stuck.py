"""A worker that cannot work notices, and is replaced; so is a helper that is frozen. A user holds one slot at most."""

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import Run
from tests.chaos.checker.violation import Violation

PROMISE = "stuck"
STARVED_S = 1.0
"""A fault during which the machine stood still for longer judges nobody."""


def check(evidence: Evidence) -> Iterator[Violation]:
    """Look for processes that stayed, and for users with two handlers in one process."""
    for fault in evidence.faults:
        if fault.survived and evidence.stalled.covered_s(fault.at, fault.until) < STARVED_S:
            pids = ", ".join(map(str, fault.survived))
            yield Violation(
                PROMISE, None, fault.until, f"nobody replaced process {pids}, struck by {fault.name} of {fault.target}"
            )
    for person in evidence.people.values():
        yield from _two_slots(person)


def _two_slots(person: Person) -> Iterator[Violation]:
    """Look for a run that began in a process in which an earlier one of the same user still ran."""
    running = defaultdict[int, list[Run]](list)
    for run in person.runs:
        earlier = running[run.pid]
        earlier[:] = [one for one in earlier if one.until > run.at]
        for other in earlier[:1]:
            yield Violation(
                PROMISE,
                person.user_id,
                run.at,
                f"process {run.pid} ran message {run.seq} while its handler of message {other.seq} still ran there",
            )
        earlier.append(run)
