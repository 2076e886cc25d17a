"""Handlers of one user run one at a time, unless a fault has just let the lease of one run out or be forgotten.

That one is mostly the first, and sometimes the second: its process stood still between its lease and its handler.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.holdings import lease_of
from tests.chaos.checker.reach import AFTERMATH_S, of_process, redis_lost, struck
from tests.chaos.checker.records import Run
from tests.chaos.checker.spans import Spans
from tests.chaos.checker.violation import Violation

PROMISE = "overlaps"


class Overlap(NamedTuple):
    """Two runs of one user at the same time."""

    first: Run
    second: Run
    until: float
    lost: Run
    """The one whose lease is the older."""
    since: float
    """From when on a fault may have ended that lease, and explains the overlap."""

    @property
    def length_s(self) -> float:
        return self.until - self.second.at


def check(evidence: Evidence) -> Iterator[Violation]:
    """Look for overlaps that neither a fault nor a stall explains."""
    excuses = Excuses(evidence)
    for overlap in overlaps(evidence):
        first, second = overlap.first, overlap.second
        if not excuses.of(overlap.lost.pid).touches(overlap.since, second.at):
            yield Violation(
                PROMISE,
                first.user_id,
                second.at,
                f"the runs of message {first.seq} (process {first.pid}) and of message {second.seq} "
                f"(process {second.pid}) overlap for {overlap.length_s:.3f} s, and no fault explains it",
            )


class Excuses:
    """When the lease of a run may have been lost: by a fault of its own process, or of Redis; by a stall."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._known: dict[int, Spans] = {}

    def of(self, pid: int) -> Spans:
        """Tell when, of a run in this process."""
        if pid not in self._known:
            after_s = self._evidence.setup.ttl_s + AFTERMATH_S
            own = struck(self._evidence, of_process(self._evidence, pid), after_s=after_s)
            stalls = self._evidence.stood_still(pid).widened(after_s=after_s)
            self._known[pid] = own.joined(stalls, redis_lost(self._evidence))
        return self._known[pid]


def judged(evidence: Evidence) -> tuple[int, int]:
    """Count the runs beside which another one would have been found out, and all."""
    excuses, runs = Excuses(evidence), [run for person in evidence.people.values() for run in person.runs]
    return sum(not excuses.of(run.pid).touches(run.at, run.until) for run in runs), len(runs)


def overlaps(evidence: Evidence) -> Iterator[Overlap]:
    """Find all overlaps, by user."""
    for person in evidence.people.values():
        given_up = _given_up(person)
        first: Run | None = None
        first_until = 0.0
        for run in person.runs:
            if first is not None and run.at < first_until:
                yield Overlap(first, run, min(first_until, _until(run, given_up)), *_lost(person, first, run))
            until = _until(run, given_up)
            if first is None or until > first_until:
                first, first_until = run, until


def _lost(person: Person, first: Run, second: Run) -> tuple[Run, float]:
    """Tell whose lease is the older, and since when a fault may have ended it."""
    first_lease, second_lease = (
        lease_of(run, [lease for lease in person.leases if lease.pid == run.pid]) for run in (first, second)
    )
    if first_lease and second_lease and second_lease.at < first_lease.at:
        return second, second_lease.at
    return first, first.at


def _given_up(person: Person) -> dict[tuple[int, str], list[float]]:
    """Tell when a process noted failures of a message: its handler may run on, but it is no turn any more."""
    given_up = defaultdict[tuple[int, str], list[float]](list)
    for fail in person.fails:
        given_up[fail.pid, fail.message_id].append(fail.at)
    return given_up


def _until(run: Run, given_up: dict[tuple[int, str], list[float]]) -> float:
    failed_at = next((at for at in given_up.get((run.pid, run.message_id), ()) if at > run.at), run.until)
    return min(failed_at, run.until)
