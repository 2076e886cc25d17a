"""A user's messages are numbered without a gap and leave in that order; a redriven one runs next."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate
from math import inf

from tests.chaos.checker.evidence import CLOCKS_DIFFER_S, Evidence, Person
from tests.chaos.checker.rows import EventRow, MessageRow
from tests.chaos.checker.violation import Violation

PROMISE = "order"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Look at the numbers, at the times of the rows, and at what began when."""
    for person in evidence.people.values():
        yield from _numbers(evidence, person)
        yield from _terminal_in_order(evidence, person)
        yield from _begun_in_order(evidence, person)
        yield from _redriven_next(evidence, person)


def _numbers(evidence: Evidence, person: Person) -> Iterator[Violation]:
    numbered: list[MessageRow | EventRow] = sorted([*person.messages, *person.events], key=lambda line: line.seq)
    for expected, message in enumerate(numbered, 1):
        if message.seq != expected:
            yield Violation(
                PROMISE,
                person.user_id,
                evidence.at(message.accepted_at),
                f"the numbers have a gap or a repetition: message {message.id} has {message.seq} in place {expected}",
            )
            return
    if person.row is not None and person.row.last_seq != len(numbered):
        yield Violation(PROMISE, person.user_id, None, f"last_seq is {person.row.last_seq}, there are {len(numbered)}")


def _terminal_in_order(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """Compare the times at which messages were processed or died, given under the user's row lock."""
    before: MessageRow | None = None
    for message in _never_redriven(person):
        if before is not None and message.left_at < before.left_at:
            yield Violation(
                PROMISE,
                person.user_id,
                evidence.at(message.left_at),
                f"message {message.seq} was {message.state} at {_when(evidence, message)}, "
                f"before message {before.seq} at {_when(evidence, before)}",
            )
        before = message


def _begun_in_order(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """See that nothing began while a message before it waited."""
    before = list(_never_redriven(person))
    seqs = [message.seq for message in before]
    done_at = [-inf, *accumulate((evidence.at(message.left_at) for message in before), max)]
    for seq, at in _begun(person):
        lower = bisect_left(seqs, seq)
        if done_at[lower] > at + CLOCKS_DIFFER_S:
            yield Violation(
                PROMISE,
                person.user_id,
                at,
                f"message {seq} began at {evidence.when(at)} at the latest, "
                f"and one before it waited until {evidence.when(done_at[lower])}",
            )


def _begun(person: Person) -> list[tuple[int, float]]:
    """Return the messages' numbers, and when they began: as the worker knows it, and as the bot does."""
    by_worker = [(begin.number, begin.at) for begin in person.begins if begin.outcome == "turn"]
    return by_worker + [(run.seq, run.at) for run in person.runs]


def _redriven_next(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """See that nothing later began while a redriven message waited: its turn would have come first."""
    turns = (begin for begin in person.begins if begin.outcome == "turn")
    begins = sorted(turns, key=lambda begin: begin.since)
    sinces = [begin.since for begin in begins]
    for message in person.messages:
        if message.redriven_at is None:
            continue
        redriven_at = evidence.at(message.redriven_at)
        waits_at = _waits_again(person, message, redriven_at)
        done_at = inf if message.processed_at is None else evidence.at(message.processed_at) - CLOCKS_DIFFER_S
        if waits_at is None:
            yield Violation(PROMISE, person.user_id, redriven_at, f"nobody asked to redrive message {message.seq}")
            continue
        for begin in begins[bisect_right(sinces, waits_at) : bisect_left(sinces, done_at)]:
            if begin.number > message.seq and begin.at < done_at:
                yield Violation(
                    PROMISE,
                    person.user_id,
                    begin.at,
                    f"message {begin.seq} began at {evidence.when(begin.at)}, although message {message.seq}, redriven "
                    f"by {evidence.when(waits_at)}, waited until {evidence.when(done_at)}",
                )


def _waits_again(person: Person, message: MessageRow, redriven_at: float) -> float | None:
    """Tell from when on a redriven message surely waited: the answer to the command, as its row may be early."""
    commands = (one for one in person.commanded("redrive") if one.message_id == message.id)
    return next((max(redriven_at, one.ended_at) for one in commands if one.ended_at > redriven_at), None)


def _never_redriven(person: Person) -> Iterator[MessageRow]:
    return (one for one in person.messages if one.redriven_at is None and one.processed_at is not None)


def _when(evidence: Evidence, message: MessageRow) -> str:
    return evidence.when(evidence.at(message.left_at))
