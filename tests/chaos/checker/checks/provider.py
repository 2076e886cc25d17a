"""Users see each reply once and in order, or the service shows what became of it: judged by the providers' journal.

The service's word for a reply must fit: what is `sent` was seen, what is `withheld` was not, and nothing is left open
once all is settled. `failed` needs a provider that had not received it, and that said so when it was asked after each
of two requests. `unknown` needs a provider that cannot be asked, and that something has kept its answer from us: the
fault of the request, one that reached the worker which had marked it, or a machine on which the request came too late.
What was given up may be seen late, or never.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.chaos.checker.checks.recovery import deaths
from tests.chaos.checker.evidence import CLOCKS_DIFFER_S, Evidence, Person
from tests.chaos.checker.reach import AFTERMATH_S, is_of_api, of_process, postgres_away, redis_lost, struck
from tests.chaos.checker.records import Mark, Read
from tests.chaos.checker.rows import ReplyRow
from tests.chaos.checker.spans import Spans
from tests.chaos.checker.violation import Violation

PROMISE = "provider"
RANKS = {"sent": 1, "delivered": 2, "read": 3}
TAKEN = frozenset({"sent", "delivered", "read"})
OPEN = frozenset({"pending", "sending"})
MUTE = frozenset({"meta", "telegram"})
"""Channels whose provider says nothing when it is asked: a reply may stay unknown there, and is given up."""
OVERTAKEN = "escalated"
LOST_TWICE = "absent"
"""The word for a reply of which two requests were lost. No fault of a run makes a provider refuse one for good."""
LOST_REQUESTS = 2
"""Of how many requests a provider must have said that it does not have the reply, once it was asked after each."""
MARKED_BEFORE_S = 5.0
"""How long before a request it may have been marked."""
ANSWERED_S = 0.5
"""How long a provider's fake may take to answer, where the machine has too much to do."""


def check(evidence: Evidence) -> Iterator[Violation]:
    """Judge what users saw, and what the service says of it."""
    for one in evidence.strangers:
        yield Violation(PROMISE, None, one.at, f"a user saw {one.text!r} under the key {one.key}, which is no reply")
    for person in evidence.people.values():
        for reply in person.all_replies:
            if why := _wrong(evidence, person, reply, is_settled="settled" in evidence.phases):
                at = person.seen[reply.id][0].at if reply.id in person.seen else None
                yield Violation(PROMISE, person.user_id, at, f"reply {reply.turn_seq}.{reply.ordinal} {why}")
            best = max(evidence.told.get(reply.id, ()), key=lambda word: RANKS.get(word, 0), default="")
            if RANKS.get(reply.state, 0) < RANKS.get(best, 0):
                why = f"is {reply.state}, and its provider has said that it is {best}"
                yield Violation(PROMISE, person.user_id, None, f"reply {reply.turn_seq}.{reply.ordinal} {why}")
        yield from _in_order(person)
        yield from _read(evidence, person)


def _wrong(evidence: Evidence, person: Person, reply: ReplyRow, *, is_settled: bool) -> str | None:
    """Say what is wrong with what became of a reply."""
    times = sum(seen.copy == 1 for seen in person.seen.get(reply.id, ()))
    channel = person.row.channel if person.row else ""
    if times > 1:
        return f"was seen {times} times: it is {reply.state}"
    if reply.state in TAKEN:
        return None if times else f"is {reply.state}, and nobody saw it"
    if reply.state in OPEN:
        return f"is {reply.state} after all" if is_settled else None
    if reply.state == "unknown" and reply.given_up_at:
        return (
            _could_be_known(evidence, person, reply) if channel in MUTE else f"is unknown, and {channel} can be asked"
        )
    return _not_sent(evidence, person, reply, channel, times)


def _not_sent(evidence: Evidence, person: Person, reply: ReplyRow, channel: str, times: int) -> str | None:
    """Say what is wrong with a reply of which the service says that it will never be seen."""
    is_absent = reply.state == "failed" and reply.failure == LOST_TWICE and channel not in MUTE
    if not (is_absent or reply.state == "withheld"):
        asked = f"{channel} can be asked" if reply.state == "unknown" else "nobody refused it"
        return f"is {reply.state} ({reply.failure}), and {asked}"
    if times:
        return f"is {reply.state}, and was seen"
    return _not_absent(evidence, person, reply) if is_absent else None


def _not_absent(evidence: Evidence, person: Person, reply: ReplyRow) -> str | None:
    """Say what is wrong with a reply that is called absent, unless its provider has said so after each of two requests.

    A worker that died may have begun one of them without a note.
    """
    assert reply.committed_at is not None
    assert reply.failed_at is not None
    since, until = evidence.at(reply.committed_at), evidence.at(reply.failed_at) + CLOCKS_DIFFER_S
    asked = [one.at for one in person.look_ups if one.is_answered and since <= one.at <= until]
    begun = _begun(person, reply)
    spans = [*pairwise(begun), *[(at, until) for at in begun[-1:]]]
    told = sum(any(first <= at <= last for at in asked) for first, last in spans)
    if any(since <= death.at <= until for death in deaths(evidence)):
        told = min(LOST_REQUESTS, len(asked))
    if told >= LOST_REQUESTS:
        return None
    return f"is failed as absent, and its provider has said so after {told} of its {len(begun)} requests"


def _begun(person: Person, reply: ReplyRow) -> list[float]:
    """Tell when requests for a reply were marked."""
    marked: dict[int | None, float] = {}
    for mark in person.marks:
        if mark.reply_id == reply.id and mark.outcome == "send":
            marked.setdefault(mark.attempt, mark.since)
    return sorted(marked.values())


def _could_be_known(evidence: Evidence, person: Person, reply: ReplyRow) -> str | None:
    """Say what is wrong with a reply that was given up, unless something has kept its provider's answer from us."""
    requests, marks = person.requests.get(reply.id, ()), [one for one in person.marks if one.reply_id == reply.id]
    if requests and not (requests[-1].is_answered and _came_in_time(evidence, requests[-1].at, marks)):
        return None
    assert reply.committed_at is not None
    assert reply.given_up_at is not None
    since, until = evidence.at(reply.committed_at), evidence.at(reply.given_up_at)
    if requests:
        since, until = max(since, requests[-1].at - MARKED_BEFORE_S), requests[-1].at
    elif sent := [one for one in marks if one.outcome == "send"]:
        since, until = sent[-1].since, sent[-1].at
    holders = {one.pid for one in marks if one.outcome == "send"} or evidence.pids_of_workers
    reaches = [is_of_api, *(of_process(evidence, pid) for pid in holders)]
    died = Spans((death.at, death.at) for death in deaths(evidence) if death.pid in holders)
    stalls = Spans(span for pid in holders for span in evidence.stood_still(pid))
    faults = struck(evidence, *reaches).joined(died, stalls, postgres_away(evidence), redis_lost(evidence))
    if faults.touches(since, until + evidence.setup.ttl_s + AFTERMATH_S):
        return None
    answered = "has answered" if requests else "was never asked to send it"
    return f"was given up, and its provider {answered}, and no fault has kept that from who had it"


def _came_in_time(evidence: Evidence, at: float, marks: Sequence[Mark]) -> bool:
    """Tell whether a request reached its provider while the worker that had marked the reply still waited for it."""
    marked = [one.at for one in marks if one.outcome == "send" and one.since <= at]
    return not marked or at < marked[-1] + evidence.setup.send_deadline_s - ANSWERED_S


def _in_order(person: Person) -> Iterator[Violation]:
    """See that a reply was seen first after those before it. Those of a redriven message come when it has run again."""
    redriven = {message.seq for message in person.messages if message.redriven_at is not None}
    latest, latest_reply = 0, ""
    for reply in person.all_replies:
        if reply.id not in person.seen or reply.turn_seq in redriven or reply.given_up_at is not None:
            continue
        first = min(person.seen[reply.id], key=lambda seen: seen.n)
        name = f"{reply.turn_seq}.{reply.ordinal}"
        if first.n < latest:
            yield Violation(PROMISE, person.user_id, first.at, f"reply {name} was seen before {latest_reply}")
        latest, latest_reply = first.n, name


def _read(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """Compare what was read at the end with the rows; a reply may have been delivered meanwhile.

    What an escalation overtook is not shown: no user is to see it. Nor is what was said before the first turn ended:
    the page lists what is said to messages.
    """
    if not person.reads:
        if person.messages and "settled" in evidence.phases:
            yield Violation(PROMISE, person.user_id, None, "nobody has read the replies to this user")
        return
    last: Read = person.reads[-1]
    read = [tuple(reply[name] for name in ("turn_seq", "ordinal", "text")) for reply in last.replies]
    shown = [reply for reply in person.all_replies if reply.failure != OVERTAKEN and reply.turn_seq]
    stored = [(reply.turn_seq, reply.ordinal, reply.text) for reply in shown]
    if read != stored:
        differing = next((pair for pair in zip(read, stored, strict=False) if pair[0] != pair[1]), "their number")
        yield Violation(
            PROMISE,
            person.user_id,
            last.at,
            f"the service showed {len(read)} replies, the database has {len(stored)}; first differing: {differing}",
        )
