"""A dead worker's lanes are due again within one lock TTL, and taken within a second by whoever has a free slot.

Those of turns and those of replies. What has happened to other workers is no excuse while one is well and has a slot.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from tests.chaos.checker.checks.pauses import perhaps_paused
from tests.chaos.checker.evidence import CLOCKS_DIFFER_S, Evidence, Person
from tests.chaos.checker.holdings import Holding
from tests.chaos.checker.reach import is_of_api, postgres_away, redis_lost, struck
from tests.chaos.checker.records import Lease
from tests.chaos.checker.slots import REPLIES, TURNS, Kind, nobody_free
from tests.chaos.checker.spans import FOR_EVER, Span, Spans
from tests.chaos.checker.violation import Violation

PROMISE = "recovery"
TAKEN_WITHIN_S = 1.0
JUDGED_WITHIN = 3
BREATH_S = 0.5
"""What a machine that was short of CPU needs to catch up."""


class Death(NamedTuple):
    """The end of a worker process without a word."""

    at: float
    pid: int


class Recovery(NamedTuple):
    """How long a lane that had work stayed with a dead worker."""

    kind: str
    death: Death
    holding: Holding
    wait: Span
    """From when on something waited on it, until it was leased, or nothing waited any more."""
    undisturbed_s: float
    is_judged: bool
    """Whether one that had stayed for JUDGED_WITHIN times as long as it may would have been found out."""

    @property
    def length_s(self) -> float:
        return self.wait.until - self.wait.since


def check(evidence: Evidence) -> Iterator[Violation]:
    """Measure from each death to the next lease, without the time in which something else went on."""
    for recovery in recoveries(evidence):
        if recovery.undisturbed_s > evidence.setup.ttl_s + TAKEN_WITHIN_S:
            yield Violation(
                PROMISE,
                recovery.holding.lease.user_id,
                recovery.death.at,
                f"process {recovery.death.pid} died at {evidence.when(recovery.death.at)}, and what waited "
                f"on its lane of {recovery.kind} did so for {recovery.length_s:.3f} s; the lane was let lie for "
                f"{recovery.undisturbed_s:.3f} s without an excuse",
            )


def recoveries(evidence: Evidence) -> Iterator[Recovery]:
    """Find all lanes that were taken over from the dead."""
    dead = {death.pid: death for death in deaths(evidence)}
    if not dead:
        return
    for kind in (TURNS, REPLIES):
        excuses = _excuses(evidence, kind)
        for person in evidence.people.values():
            yield from _of(evidence, person, kind, dead, excuses)


def judged(evidence: Evidence) -> tuple[int, int]:
    """Count the lanes of the dead of which it would have been found out that they stay, and all."""
    found = list(recoveries(evidence))
    return sum(one.is_judged for one in found), len(found)


def _excuses(evidence: Evidence, kind: Kind) -> Spans:
    """Tell when nobody could take a lane: nobody had a slot, or a server was in trouble that all of them need.

    A lane of replies may also be one that waits for its provider.
    """
    apis = struck(evidence, is_of_api) if kind is REPLIES else Spans()
    servers = postgres_away(evidence).joined(redis_lost(evidence), apis)
    return servers.joined(nobody_free(evidence, kind), evidence.stalled.widened(after_s=BREATH_S), evidence.crowded)


def _of(evidence: Evidence, person: Person, kind: Kind, dead: dict[int, Death], excuses: Spans) -> Iterator[Recovery]:
    own = excuses.joined(perhaps_paused(person)) if kind is TURNS else excuses
    for nr, held in enumerate(held_lanes := list(kind.held(person))):
        death = dead.get(held.lease.pid)
        following: Lease | None = held_lanes[nr + 1].lease if nr + 1 < len(held_lanes) else None
        if death is None or following is None or held.is_over or not held.lease.at <= death.at < following.at:
            continue
        waits = _waits(evidence, person) if kind is TURNS else _reply_waits(evidence, person)
        found = [
            _recovery(evidence, kind, death, held, wait, own)
            for wait in waits.within(death.at + CLOCKS_DIFFER_S, following.at)
        ]
        if found:
            yield max(found, key=lambda recovery: recovery.undisturbed_s)


def _recovery(evidence: Evidence, kind: Kind, death: Death, held: Holding, wait: Span, excuses: Spans) -> Recovery:
    """Measure one; what waits later than a lease lives finds the lane due."""
    ttl_s, longest_s = evidence.setup.ttl_s, evidence.setup.ttl_s + TAKEN_WITHIN_S
    since = max(death.at, wait.since - ttl_s)
    is_judged = excuses.free_s(since, since + JUDGED_WITHIN * longest_s) > longest_s
    return Recovery(kind.name, death, held, wait, excuses.free_s(since, wait.until), is_judged)


def _waits(evidence: Evidence, person: Person) -> Spans:
    """Tell when messages waited, each from its answer on."""
    found = ((one, person.letters.get(one.external_id)) for one in person.messages)
    ends = ((letter.acked_at, _end(evidence, one.processed_at)) for one, letter in found if letter)
    return Spans((since, until) for since, until in ends if since < until)


def _reply_waits(evidence: Evidence, person: Person) -> Spans:
    """Tell when replies waited. One may leave without a lease: by its status, or a command."""
    ends = (
        (evidence.at(one.committed_at), _end(evidence, one.left_at)) for one in person.all_replies if one.committed_at
    )
    return Spans((since, until) for since, until in ends if since < until)


def _end(evidence: Evidence, left_at: datetime | None) -> float:
    return FOR_EVER if left_at is None else evidence.at(left_at)


def deaths(evidence: Evidence) -> Iterator[Death]:
    """Return the deaths of worker processes of which the moment is known: by a kill, by a message that says so."""
    for fault in evidence.faults:
        if fault.name.startswith("kill"):
            yield from (Death(fault.at, pid) for pid in fault.pids if pid in evidence.pids_of_workers)
    for run in evidence.crashes:
        if run.pid in evidence.pids_of_workers:
            yield Death(run.until, run.pid)
