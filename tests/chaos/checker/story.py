"""One user's history as a person reads it: who did what when, the database's rows and the faults in between."""

from bisect import bisect_left
from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import (
    Begin,
    Call,
    Command,
    Commit,
    Fail,
    Finish,
    Lease,
    Mark,
    OutFinish,
    OutLease,
    OutPark,
    Park,
    Posted,
    Read,
    Run,
    Said,
    Settle,
)
from tests.chaos.checker.violation import Violation

BEFORE_MAX, AFTER_MAX = 70, 30
"""How many lines before and after the moment of a violation."""


class Line(NamedTuple):
    """Something that happened."""

    at: float
    who: str
    what: str


def tell(evidence: Evidence, violation: Violation) -> list[str]:
    """Tell the part of the user's history that lies around a violation."""
    person = evidence.people.get(violation.user_id or "")
    if person is None:
        return []
    lines = sorted([*_lines(evidence, person), *_weather(evidence)])
    lines = _around(lines, violation.at)
    channel = f" on {person.row.channel}" if person.row else ""
    return [f"user {person.user_id}{channel}", *(_worded(evidence, line, violation.at) for line in lines)]


def _around(lines: list[Line], at: float | None) -> list[Line]:
    middle = len(lines) if at is None else bisect_left(lines, (at,))
    return lines[max(0, middle - BEFORE_MAX) : middle + AFTER_MAX]


def _worded(evidence: Evidence, line: Line, at: float | None) -> str:
    mark = ">" if at is not None and abs(line.at - at) < 1e-6 else " "
    return f"{mark} {line.at - evidence.began_at:9.3f}  {line.who:14} {line.what}"


def _weather(evidence: Evidence) -> Iterator[Line]:
    """Tell what was done to everybody."""
    for fault in evidence.faults:
        yield Line(fault.at, "fault", f"{fault.name} of {fault.target} begins")
        if fault.until < inf:
            yield Line(fault.until, "fault", f"{fault.name} of {fault.target} is over")
    for stall in evidence.stalls:
        yield Line(stall.until, f"{stall.who} {stall.pid}", f"got no CPU for {stall.until - stall.since:.3f} s")
    for since, until in evidence.calms:
        yield Line(since, "calm", "begins")
        yield Line(until, "calm", "is over")
    for name, at in evidence.phases.items():
        yield Line(at, "harness", name)


def _lines(evidence: Evidence, person: Person) -> Iterator[Line]:
    seqs: dict[str | None, int] = {message.id: message.seq for message in person.messages}
    numbers = {reply.id: f"{reply.turn_seq}.{reply.ordinal}" for reply in person.all_replies}
    for said in person.said:
        yield from _said(said, seqs, numbers)
    for message in person.messages:
        what = f"message {message.seq} {message.external_id}"
        yield Line(evidence.at(message.accepted_at), "database", f"{what} is accepted: {message.text!r}")
        if message.redriven_at is not None:
            yield Line(evidence.at(message.redriven_at), "database", f"{what} waits again")
        if message.processed_at is not None:
            in_session = f"in session {message.session_id}"
            replies = [reply.text for reply in person.replies.get(message.seq, [])]
            yield Line(
                evidence.at(message.processed_at), "database", f"{what} is {message.state} {in_session}: {replies}"
            )
    for reply in person.all_replies:
        for seen in person.seen.get(reply.id, ()):
            what = f"shows reply {reply.turn_seq}.{reply.ordinal}, which is {reply.state}: request {seen.n}"
            yield Line(seen.at, "provider's fake", what)
    for session in person.sessions:
        yield Line(evidence.at(session.started_at), "database", f"session {session.id} begins, by its row")
        if session.ended_at is not None:
            what = f"session {session.id} ends by {session.ended_reason}, by its row"
            yield Line(evidence.at(session.ended_at), "database", what)


def _said(said: Said, seqs: dict[str | None, int], numbers: dict[str, str]) -> Iterator[Line]:
    match said:
        case Posted():
            yield Line(said.at, "provider", f"{said.delivery}: {said.what}")
        case Run():
            what = f"message {said.seq} in session {said.session_id}: {said.text!r}"
            yield Line(said.at, f"bot {said.pid}", f"is given {what}")
            ended = f"run of message {said.seq} {said.result}" if said.result else f"last sign of message {said.seq}"
            yield Line(said.until, f"bot {said.pid}", ended)
        case Command():
            which = f" message {seqs.get(said.message_id, said.message_id)}" if said.message_id else ""
            yield Line(said.at, "operator", f"{said.name}{which}, after message {said.after_seq}")
            if said.ended_at < inf:
                done = f"done, {said.answer}" if said.is_done else "given up"
                yield Line(said.ended_at, "operator", f"{said.name}{which}: {done}")
        case Read():
            yield Line(said.at, "provider", f"reads {len(said.replies)} replies")
        case Call():
            yield Line(said.at, f"bot {said.pid}", f"model, step {said.key} of {said.batch}: {said.phase}")
        case Mark() | Settle() | OutLease() | OutFinish() | OutPark():
            yield Line(said.at, f"worker {said.pid}", _of_sender(said, numbers))
        case _:
            yield Line(said.at, f"worker {said.pid}", _of_worker(said, seqs))


def _of_sender(said: Mark | Settle | OutLease | OutFinish | OutPark, numbers: dict[str, str]) -> str:
    match said:
        case OutLease() | OutFinish() | OutPark():
            return f"of the replies: {_of_worker(said, {})}"
        case Mark():
            which = (
                f" reply {numbers.get(said.reply_id, said.reply_id)}, request {said.attempt}" if said.reply_id else ""
            )
            return f"begins a send under {said.fence}: {said.outcome}{which}"
        case Settle():
            which = f"reply {numbers.get(said.reply_id, said.reply_id)}, request {said.attempt}"
            return f"settles {which} under {said.fence} as {said.deed}: {said.outcome}"


def _of_worker(said: Lease | Begin | Commit | Fail | Finish | Park, seqs: dict[str | None, int]) -> str:
    match said:
        case Lease():
            return f"leases the lane, fence {said.fence}{', taken over' if said.taken_over else ''}"
        case Begin():
            which = f" messages {said.seqs} in session {said.session_id}, {said.session_status}" if said.seq else ""
            return f"begins under {said.fence}: {said.outcome}{which}"
        case Commit() | Fail():
            what = "commits" if isinstance(said, Commit) else "fails"
            return f"{what} message {seqs.get(said.message_id, said.message_id)} under {said.fence}: {said.outcome}"
        case Finish():
            return f"finishes {said.token}: {said.released}"
        case Park():
            return f"parks {said.token} {f'for {said.delay_s:.3f} s' if said.is_parked else 'too late'}"
