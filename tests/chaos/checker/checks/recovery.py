"""A dead worker's lanes are due again within one lock TTL, and taken within a second by whoever has a free slot."""

from collections.abc import Iterator
from itertools import pairwise
from math import inf
from typing import NamedTuple

from tests.chaos.checker.checks.pauses import perhaps_paused
from tests.chaos.checker.evidence import CLOCKS_DIFFER_S, Evidence, Person
from tests.chaos.checker.holdings import Holding, holdings
from tests.chaos.checker.records import Lease
from tests.chaos.checker.spans import Spans, crowded
from tests.chaos.checker.violation import Violation

PROMISE = "recovery"
TAKEN_WITHIN_S = 1.0
AFTERMATH_S = 2.0
"""How long after a lease's life other faults may still be felt, and that a worker was missing."""
BREATH_S = 0.5
"""What a machine that was short of CPU needs to catch up."""


class Death(NamedTuple):
    """The end of a worker process without a word."""

    at: float
    pid: int


class Recovery(NamedTuple):
    """How long a lane that had work stayed with a dead worker."""

    death: Death
    holding: Holding
    taken_at: float
    undisturbed_s: float

    @property
    def length_s(self) -> float:
        return self.taken_at - self.death.at


def check(evidence: Evidence) -> Iterator[Violation]:
    """Measure from each death to the next lease, without the time in which something else went on."""
    for recovery in recoveries(evidence):
        if recovery.undisturbed_s > evidence.setup.ttl_s + TAKEN_WITHIN_S:
            yield Violation(
                PROMISE,
                recovery.holding.lease.user_id,
                recovery.death.at,
                f"process {recovery.death.pid} died at {evidence.when(recovery.death.at)}, and its lane was leased "
                f"again after {recovery.length_s:.3f} s, of which {recovery.undisturbed_s:.3f} s without an excuse",
            )


def recoveries(evidence: Evidence) -> Iterator[Recovery]:
    """Find all lanes that were taken over from the dead."""
    dead = {death.pid: death for death in deaths(evidence)}
    if not dead:
        return
    busy = full_where_workers_are(evidence).joined(without_workers(evidence))
    disturbed = {death.pid: _disturbed(evidence, death).joined(busy) for death in dead.values()}
    for person in evidence.people.values():
        if any(lease.pid in dead for lease in person.leases):
            yield from _of(evidence, person, dead, disturbed)


def without_workers(evidence: Evidence, at_least: int = 1) -> Spans:
    """Tell when fewer workers were there to lease, each from its first lease to its last, and until it can be felt."""
    seen: dict[int, list[float]] = {}
    for person in (*evidence.people.values(), *evidence.forgotten.values()):
        for one in (*person.leases, *person.releases):
            seen.setdefault(one.pid, []).append(one.at)
    at_work = crowded([(min(times), max(times)) for times in seen.values()], at_least)
    return Spans((before.until, after.since + AFTERMATH_S) for before, after in pairwise(at_work))


def full(evidence: Evidence, slots: int) -> Spans:
    """Tell when so many slots were busy."""
    return crowded(_busy(evidence), slots)


def full_where_workers_are(evidence: Evidence) -> Spans:
    """Tell when all slots but one were busy of each worker that was there."""
    setup = evidence.setup
    missing = [span for nr in range(1, setup.workers + 1) for span in without_workers(evidence, nr)]
    each = setup.slots - 1
    return crowded([*_busy(evidence), *(span for span in missing for _ in range(each))], max(1, setup.workers * each))


def _busy(evidence: Evidence) -> list[tuple[float, float]]:
    everybody = (*evidence.people.values(), *evidence.forgotten.values())
    return [(held.lease.at, held.until) for person in everybody for held in holdings(person)]


def _of(evidence: Evidence, person: Person, dead: dict[int, Death], disturbed: dict[int, Spans]) -> Iterator[Recovery]:
    paused = perhaps_paused(person)
    for nr, held in enumerate(held_lanes := list(holdings(person))):
        death = dead.get(held.lease.pid)
        following: Lease | None = held_lanes[nr + 1].lease if nr + 1 < len(held_lanes) else None
        if death is None or following is None or held.is_over or not held.lease.at <= death.at < following.at:
            continue
        wanted_at = _wanted_at(evidence, person, death.at)
        if wanted_at < following.at:
            since = max(death.at, wanted_at - evidence.setup.ttl_s)
            excuses = disturbed[death.pid].joined(paused)
            yield Recovery(death, held, following.at, excuses.free_s(since, following.at))


def _wanted_at(evidence: Evidence, person: Person, at: float) -> float:
    """Tell from when on, after `at`, something waited: what is processed by then wanted nothing any more."""
    moment = evidence.instant(at)
    waiting = [one for one in person.messages if one.processed_at is None or one.processed_at > moment]
    letters = (person.letters.get(one.external_id) for one in waiting)
    return max(at, min((letter.acked_at for letter in letters if letter), default=inf)) + CLOCKS_DIFFER_S


def deaths(evidence: Evidence) -> Iterator[Death]:
    """Return the deaths of worker processes of which the moment is known: by a kill, by a message that says so."""
    for fault in evidence.faults:
        if fault.name.startswith("kill"):
            yield from (Death(fault.at, pid) for pid in fault.pids if pid in evidence.pids_of_workers)
    for run in evidence.crashes:
        if run.pid in evidence.pids_of_workers:
            yield Death(run.until, run.pid)


def _disturbed(evidence: Evidence, death: Death) -> Spans:
    """Tell when something besides this death went on."""
    faults = Spans((one.at, one.until) for one in evidence.faults if death.pid not in one.pids)
    crashes = Spans((run.until, run.until) for run in evidence.crashes if run.pid != death.pid)
    strikes = faults.joined(crashes).widened(after_s=evidence.setup.ttl_s + AFTERMATH_S)
    return strikes.joined(evidence.stalled.widened(after_s=BREATH_S))
