"""Handlers of one user run one at a time, unless a fault has just let a lease run out or be forgotten."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import Run
from tests.chaos.checker.violation import Violation

PROMISE = "overlaps"
AFTERMATH_S = 2.0
"""How long after a lease's life the effects of a fault may show."""


class Overlap(NamedTuple):
    """Two runs of one user at the same time."""

    first: Run
    second: Run
    until: float

    @property
    def length_s(self) -> float:
        return self.until - self.second.at


def check(evidence: Evidence) -> Iterator[Violation]:
    """Look for overlaps that neither a fault nor a stall explains."""
    aftermath_s = evidence.setup.ttl_s + AFTERMATH_S
    disturbed = evidence.struck.joined(evidence.stalled).widened(after_s=aftermath_s)
    for overlap in overlaps(evidence):
        first, second = overlap.first, overlap.second
        if not disturbed.touches(first.at, second.at):
            yield Violation(
                PROMISE,
                first.user_id,
                second.at,
                f"the runs of message {first.seq} (process {first.pid}) and of message {second.seq} "
                f"(process {second.pid}) overlap for {overlap.length_s:.3f} s, and no fault explains it",
            )


def overlaps(evidence: Evidence) -> Iterator[Overlap]:
    """Find all overlaps, by user."""
    for person in evidence.people.values():
        given_up = _given_up(person)
        first: Run | None = None
        first_until = 0.0
        for run in person.runs:
            if first is not None and run.at < first_until:
                yield Overlap(first, run, min(first_until, _until(run, given_up)))
            until = _until(run, given_up)
            if first is None or until > first_until:
                first, first_until = run, until


def _given_up(person: Person) -> dict[tuple[int, str], list[float]]:
    """Tell when a process noted failures of a message: its handler may run on, but it is no turn any more."""
    given_up = defaultdict[tuple[int, str], list[float]](list)
    for fail in person.fails:
        given_up[fail.pid, fail.message_id].append(fail.at)
    return given_up


def _until(run: Run, given_up: dict[tuple[int, str], list[float]]) -> float:
    failed_at = next((at for at in given_up.get((run.pid, run.message_id), ()) if at > run.at), run.until)
    return min(failed_at, run.until)
