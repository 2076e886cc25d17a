"""In calm nobody waits for long beside a free slot; nor while a provider alone, to which we send, is slow or away.

A worker that starts takes the machine's time from the others: until all are there nobody is blamed for it.
"""

from collections.abc import Iterator
from itertools import accumulate
from math import inf
from typing import NamedTuple

from tests.chaos.checker.checks.pauses import perhaps_paused
from tests.chaos.checker.checks.recovery import AFTERMATH_S, BREATH_S, full_where_workers_are, without_workers
from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import Park
from tests.chaos.checker.rows import MessageRow
from tests.chaos.checker.spans import Spans
from tests.chaos.checker.violation import Violation

PROMISE = "calm"
WAITS_MAX_S = 1.0
PARKED_S = 1.0
"""How long a failed turn's lane may stay parked: several times the longest backoff of a run."""


class Wait(NamedTuple):
    """How long a message waited in calm although it could have begun."""

    message: MessageRow
    since: float
    until: float
    unexcused_s: float


def check(evidence: Evidence) -> Iterator[Violation]:
    """Look for messages that waited without an excuse."""
    for wait in waits(evidence):
        if wait.unexcused_s > WAITS_MAX_S:
            yield Violation(
                PROMISE,
                wait.message.user_id,
                wait.since,
                f"message {wait.message.seq} waited {wait.until - wait.since:.3f} s in calm, of which "
                f"{wait.unexcused_s:.3f} s beside a free slot",
            )


def waits(evidence: Evidence) -> Iterator[Wait]:
    """Measure all waits that ended, or lasted, in a calm period, or while providers alone had faults."""
    calms = Spans([*evidence.calms, *_providers_alone(evidence)])
    if not list(calms):
        return
    aftermath_s = evidence.setup.ttl_s + AFTERMATH_S
    crashed = Spans((run.until, run.until) for run in evidence.crashes).widened(after_s=aftermath_s)
    starting = without_workers(evidence, evidence.setup.workers)
    excuses = full_where_workers_are(evidence).joined(crashed, starting, evidence.stalled.widened(after_s=BREATH_S))
    for person in evidence.people.values():
        own = excuses.joined(perhaps_paused(person), _parked(person))
        for message, ready_at, began_at in _first_begins(evidence, person):
            for since, until in calms.within(ready_at, began_at):
                yield Wait(message, since, until, own.free_s(since, until))


def _providers_alone(evidence: Evidence) -> Iterator[tuple[float, float]]:
    """Tell when nothing was broken, nor had been just before, but the providers' APIs."""
    others = Spans((one.at, one.until) for one in evidence.faults if not one.name.startswith("api-"))
    disturbed = others.widened(after_s=evidence.setup.ttl_s + AFTERMATH_S)
    for fault in evidence.faults:
        if fault.name.startswith("api-") and fault.until < inf and not disturbed.touches(fault.at, fault.until):
            yield fault.at, fault.until


def _first_begins(evidence: Evidence, person: Person) -> Iterator[tuple[MessageRow, float, float]]:
    """Tell of each message when its turn could begin first, and when it did."""
    began_at: dict[int, float] = {}
    for begin in person.begins:
        if begin.outcome == "turn":
            for seq in begin.seqs or ():
                began_at.setdefault(seq, begin.at)
    before = [-inf, *accumulate(_left_order(evidence, person), max)]
    redriven = Spans(_redriven(evidence, person))
    policy = evidence.setup.channels.get(person.row.channel, {}) if person.row else {}
    collects_s = policy["collect_max_s"] if policy.get("on_busy") == "collect" else 0.0
    for nr, message in enumerate(person.messages):
        letter = person.letters.get(message.external_id)
        if letter is None or message.redriven_at is not None:
            continue
        processed_at = inf if message.processed_at is None else evidence.at(message.processed_at)
        began, ready_at = began_at.get(message.seq, processed_at), max(letter.acked_at + collects_s, before[nr])
        if ready_at < began and not redriven.touches(ready_at, began):
            yield message, ready_at, began


def _left_order(evidence: Evidence, person: Person) -> Iterator[float]:
    """Tell of each message when it let the next one begin; a redriven one did when it died, as a worker noted."""
    died_at = {fail.message_id: fail.at for fail in reversed(person.fails) if fail.outcome == "dead"}
    for message in person.messages:
        at = inf if message.processed_at is None else evidence.at(message.processed_at)
        yield at if message.redriven_at is None else died_at.get(message.id, at)


def _redriven(evidence: Evidence, person: Person) -> Iterator[tuple[float, float]]:
    """Tell when a redriven message waited or ran: it comes before all others, at a time of its own."""
    for message in person.messages:
        if message.redriven_at is not None:
            done_at = inf if message.processed_at is None else evidence.at(message.processed_at)
            yield evidence.at(message.redriven_at), done_at


def _parked(person: Person) -> Spans:
    parks = [(park.since, park.at + park.delay_s) for park in person.releases if isinstance(park, Park)]
    return Spans([*parks, *((fail.since, fail.at + PARKED_S) for fail in person.fails)])
