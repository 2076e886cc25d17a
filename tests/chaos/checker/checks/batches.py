"""Every message is in one committed batch; who is in stands from its first begin on, or a newer message throws it away.

A batch is named by its first message. What its turn has taken in (`newer`) belongs to it as well. A turn that is thrown
away leaves nothing, so that what was answered is what its batch asks for: see `effects`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from math import inf

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import Begin
from tests.chaos.checker.rows import MessageRow
from tests.chaos.checker.violation import Violation
from tests.chaos.traffic.speech import BATCH, END_WORD, ask_of

PROMISE = "batches"
INTERRUPT = "interrupt"
ARRIVED_S = 0.1
"""How long before a commit a message must have come that was to throw it away."""


def check(evidence: Evidence) -> Iterator[Violation]:
    """Look at who was answered together, at what each begin was given, at what was thrown away, and at models."""
    for person in evidence.people.values():
        policy = evidence.setup.channels.get(person.row.channel if person.row else "", {})
        yield from _in_one(evidence, person)
        yield from _were_given(evidence, person)
        yield from _frozen(person, is_interrupted=policy.get("on_busy") == INTERRUPT)
        yield from _called_again(evidence, person)
        if policy.get("on_busy") == INTERRUPT:
            yield from _thrown_away(person, policy["interrupt_max"])
            yield from _not_thrown_away(evidence, person, policy["interrupt_max"], policy.get("batch_max", inf))


def _in_one(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """See that batches hold neighbours of one session, each once."""
    named = Counter(
        seq
        for outputs in person.outputs.values()
        for output in outputs
        if output.name == BATCH
        for seq in output.data["seqs"]
    )
    for seq in (seq for seq, times in named.items() if times > 1):
        yield Violation(PROMISE, person.user_id, None, f"message {seq} is in {named[seq]} batches")
    places = {message.seq: place for place, message in enumerate(person.messages)}
    for last, batch in person.batches.items():
        seqs = [message.seq for message in batch]
        problem = None
        if seqs[-1] != last:
            problem = f"was stored with message {last}"
        elif any(places[other] != places[one] + 1 for one, other in pairwise(seqs)):
            problem = "leaves out one between them"
        elif len({message.session_id for message in batch}) > 1:
            problem = "lies in several sessions"
        elif len(batch) > 1 and any(message.text == END_WORD or message.redriven_at for message in batch):
            problem = "has one that stands alone"
        if problem is not None:
            at = evidence.at(batch[-1].left_at)
            yield Violation(PROMISE, person.user_id, at, f"the batch of the messages {seqs} {problem}")


def _were_given(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """See that what was answered together is what one run of the bot had."""
    good = {run.members for run in person.runs if run.result == "ok"}
    for batch in person.batches.values():
        if len(batch) > 1 and frozenset(message.id for message in batch) not in good:
            at = evidence.at(batch[-1].left_at)
            seqs = [message.seq for message in batch]
            yield Violation(PROMISE, person.user_id, at, f"no run of the bot had the messages {seqs}")


def _frozen(person: Person, *, is_interrupted: bool) -> Iterator[Violation]:
    """Compare what begins of one batch were given, in the order in which they were asked.

    Postgres may have done two that were under way at once in the other order.
    """
    for begins in _begins(person).values():
        for before, after in pairwise(begins):
            orders = [(before, after), (after, before)] if after.since < before.at else [(before, after)]
            if not any(_fits(person, *order, is_interrupted=is_interrupted) for order in orders):
                yield Violation(
                    PROMISE,
                    person.user_id,
                    after.at,
                    f"the batch of the messages {before.seqs} began again as {after.seqs}: who is in was to stay",
                )


def _fits(person: Person, before: Begin, after: Begin, *, is_interrupted: bool) -> bool:
    """Tell whether a batch may begin again so: with the same messages, with its first alone, or with more."""
    had, has = before.seqs or [], after.seqs or []
    if has == had or (has == had[:1] and _may_have_failed(person, before, after)):
        return True
    newer_at = min((run.newer_at for run in person.runs if run.message_id == after.message_id), default=inf)
    may_widen = newer_at < after.at or (is_interrupted and _may_be_thrown_away(person, before, after))
    return may_widen and set(has) > set(had)


def _begins(person: Person) -> dict[str, list[Begin]]:
    """Sort begins by batch; a redriven message is another batch than before."""
    begins = defaultdict[str, list[Begin]](list)
    redriven = {message.id for message in person.messages if message.redriven_at is not None}
    for begin in sorted(person.begins, key=lambda begin: begin.since):
        if begin.outcome == "turn" and begin.message_id is not None and begin.message_id not in redriven:
            begins[begin.message_id].append(begin)
    return begins


def _may_have_failed(person: Person, before: Begin, after: Begin) -> bool:
    """Tell whether a batch may have failed before it began again: a process that was killed may not have noted it."""
    failed = any(fail.message_id == before.message_id and fail.since <= after.at for fail in person.fails)
    return failed or before.pid != after.pid


def _may_be_thrown_away(person: Person, before: Begin, after: Begin) -> bool:
    """Tell the same of a turn that was thrown away."""
    settled = [one for one in person.commits if one.message_id == before.message_id and one.since <= after.at]
    return before.pid != after.pid or any(one.outcome in {"superseded", "unknown"} for one in settled)


def _called_again(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """See that no model is asked what is kept already.

    A redriven message asks anew, and so does a batch of which a turn was thrown away, with what it had kept. Who had
    looked just before it was kept may ask: for as long as a process may stand still between the two.
    """
    anew = {message.id for message in person.messages if message.redriven_at is not None}
    anew |= {begin.message_id or "" for begin in person.begins if begin.superseded}
    kept: dict[tuple[str, str], float] = {}
    for call in person.calls:
        step = call.batch, call.key
        if call.batch.partition(":")[0] in anew:
            continue
        if call.phase == "kept":
            kept.setdefault(step, call.at)
        elif (
            call.phase == "begin"
            and call.at > kept.get(step, inf) + ARRIVED_S
            and not evidence.stood_still(call.pid).touches(kept[step], call.at)
        ):
            sentence = f"a model was asked again for step {call.key} of batch {call.batch}, whose answer was kept"
            yield Violation(PROMISE, person.user_id, call.at, sentence)


def _thrown_away(person: Person, most: int) -> Iterator[Violation]:
    thrown = Counter(one.message_id for one in person.commits if one.outcome == "superseded")
    for first, times in thrown.items():
        if times > most:
            number = person.by_id[first].seq if first in person.by_id else first
            sentence = f"{times} turns of message {number} were thrown away, more than {most}"
            yield Violation(PROMISE, person.user_id, None, sentence)


def _not_thrown_away(evidence: Evidence, person: Person, most: int, batch_max: float) -> Iterator[Violation]:
    """See that no turn is committed that a newer message was to throw away: whatever Redis knew of that.

    A batch that is full takes nothing in.
    """
    places = {message.seq: place for place, message in enumerate(person.messages)}
    for batch in person.batches.values():
        last = batch[-1]
        newer = next(iter(person.messages[places[last.seq] + 1 :]), None)
        if newer is None or last.state != "processed" or not _joins(last, newer) or _is_shielded(batch):
            continue
        if len(batch) >= batch_max:
            continue
        came_s = evidence.at(last.left_at) - evidence.at(newer.accepted_at)
        begun = [begin for begin in person.begins if begin.message_id == batch[0].id and begin.superseded is not None]
        if came_s > ARRIVED_S and begun and (begun[-1].superseded or 0) < most:
            yield Violation(
                PROMISE,
                person.user_id,
                evidence.at(last.left_at),
                f"a turn was committed that answers {[one.seq for one in batch]}, although message {newer.seq} had "
                f"come {came_s:.3f} s before, and {begun[-1].superseded} turns had been thrown away, not {most}",
            )


def _joins(last: MessageRow, newer: MessageRow) -> bool:
    """Tell whether a message belongs into the batch of the one before it, as far as it surely does."""
    alone = last.redriven_at or newer.redriven_at or last.end_at or newer.end_at or newer.attempts or last.attempts
    return not alone and END_WORD not in {last.text, newer.text} and last.session_id == newer.session_id


def _is_shielded(batch: list[MessageRow]) -> bool:
    return any(ask_of(message.text).word == "shield" for message in batch)
