"""In calm nobody waits for long beside a free slot; nor while a provider alone, to which we send, is slow or away.

No message waits for its turn, and no reply to be sent once those before it are. A worker that starts takes the
machine's time from the others: until all are there nobody is blamed for it.
"""

from collections.abc import Iterator
from itertools import accumulate
from math import inf
from typing import NamedTuple

from tests.chaos.checker.checks.pauses import perhaps_paused
from tests.chaos.checker.checks.recovery import BREATH_S
from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.reach import AFTERMATH_S
from tests.chaos.checker.records import Park
from tests.chaos.checker.rows import MessageRow, ReplyRow
from tests.chaos.checker.slots import REPLIES, TURNS, full_where_workers_are, without_workers
from tests.chaos.checker.spans import Spans
from tests.chaos.checker.violation import Violation

PROMISE = "calm"
WAITS_MAX_S = 1.0
PARKED_S = 1.0
"""How long a failed turn's lane may stay parked: several times the longest backoff of a run."""
SUSPECT_DEATHS = 2
"""A message at whose turns so many processes have died runs apart, and there is not always room for that."""
HELD_S = 35.0
"""How long a provider's failure may keep the replies of its channel back."""


class Wait(NamedTuple):
    """How long a message or a reply waited in calm although it could have begun."""

    user_id: str
    what: str
    since: float
    until: float
    unexcused_s: float


def check(evidence: Evidence) -> Iterator[Violation]:
    """Look for messages and replies that waited without an excuse."""
    for wait in waits(evidence):
        if wait.unexcused_s > WAITS_MAX_S:
            yield Violation(
                PROMISE,
                wait.user_id,
                wait.since,
                f"{wait.what} waited {wait.until - wait.since:.3f} s in calm, of which "
                f"{wait.unexcused_s:.3f} s beside a free slot",
            )


def waits(evidence: Evidence) -> Iterator[Wait]:
    """Measure all waits that ended, or lasted, in a calm period; of messages also while providers alone had faults."""
    aftermath_s = evidence.setup.ttl_s + AFTERMATH_S
    crashed = Spans((run.until, run.until) for run in evidence.crashes).widened(after_s=aftermath_s)
    starting = without_workers(evidence, evidence.setup.workers)
    everybody = crashed.joined(starting, evidence.stalled.widened(after_s=BREATH_S), evidence.crowded)
    yield from _of_messages(evidence, everybody)
    yield from _of_replies(evidence, everybody)


def _of_messages(evidence: Evidence, everybody: Spans) -> Iterator[Wait]:
    calms = Spans([*evidence.calms, *_providers_alone(evidence)])
    if not list(calms):
        return
    excuses = everybody.joined(full_where_workers_are(evidence, TURNS))
    for person in evidence.people.values():
        own = excuses.joined(perhaps_paused(person), Spans(_parked(person)))
        for message, ready_at, began_at in _first_begins(evidence, person):
            for since, until in calms.within(ready_at, began_at):
                yield Wait(person.user_id, f"message {message.seq}", since, until, own.free_s(since, until))


def _of_replies(evidence: Evidence, everybody: Spans) -> Iterator[Wait]:
    calms = Spans(evidence.calms)
    if not list(calms):
        return
    excuses = everybody.joined(full_where_workers_are(evidence, REPLIES))
    for person in evidence.people.values():
        own = excuses.joined(_held(evidence, person))
        for reply, ready_at, began_at in _first_marks(evidence, person):
            for since, until in calms.within(ready_at, began_at):
                what = f"reply {reply.turn_seq}.{reply.ordinal}"
                yield Wait(person.user_id, what, since, until, own.free_s(since, until))


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


def _parked(person: Person) -> Iterator[tuple[float, float]]:
    """Tell when a lane was parked for a reason: its handler had failed, or its message was to run apart.

    That the service has parked it is no reason.
    """
    for fail in person.fails:
        if any(fail.message_id in run.members and run.at <= fail.at and run.result != "ok" for run in person.runs):
            yield fail.since, fail.at + PARKED_S
    for park in (one for one in person.releases if isinstance(one, Park)):
        begins = [one for one in person.begins if one.pid == park.pid and one.at <= park.since]
        if begins and (begins[-1].deaths or 0) >= SUSPECT_DEATHS:
            yield park.since, park.at + park.delay_s


def _first_marks(evidence: Evidence, person: Person) -> Iterator[tuple[ReplyRow, float, float]]:
    """Tell of each reply when it could be marked first, and when it was; of a redriven message they come last."""
    redriven = {message.seq for message in person.messages if message.redriven_at is not None}
    marked_at: dict[str, float] = {}
    for mark in person.marks:
        if mark.reply_id is not None:
            marked_at.setdefault(mark.reply_id, mark.at)
    before_left_at = -inf
    for reply in (one for one in person.all_replies if one.turn_seq not in redriven):
        left_at = evidence.at(reply.left_at) if reply.left_at else inf
        if reply.committed_at is not None and reply.state != "withheld":
            ready_at, began_at = max(evidence.at(reply.committed_at), before_left_at), marked_at.get(reply.id, left_at)
            if ready_at < began_at:
                yield reply, ready_at, began_at
        before_left_at = max(before_left_at, left_at if reply.state != "withheld" else -inf)


def _held(evidence: Evidence, person: Person) -> Spans:
    """Tell when replies waited for their provider: it had failed, or wanted no more for a while."""
    channel = person.row.channel if person.row else ""
    failed = ((one.at, one.at) for one in evidence.requests if one.fault and one.channel == channel)
    return Spans(failed).widened(after_s=HELD_S)
