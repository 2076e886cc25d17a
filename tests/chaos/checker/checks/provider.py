"""Users see each reply once and in order, or the service shows what became of it: judged by the providers' journal.

The service's word for a reply must fit: what is `sent` was seen, what is `withheld` was not, and nothing is left open
once all is settled. `unknown` needs a provider that cannot be asked; `failed` one that can, and that has twice not
received it. A reply that was given up may be seen late, or never.
"""

from collections.abc import Iterator

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import Read
from tests.chaos.checker.rows import ReplyRow
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


def check(evidence: Evidence) -> Iterator[Violation]:
    """Judge what users saw, and what the service says of it."""
    for one in evidence.strangers:
        yield Violation(PROMISE, None, one.at, f"a user saw {one.text!r} under the key {one.key}, which is no reply")
    for person in evidence.people.values():
        for reply in person.all_replies:
            if why := _wrong(person, reply, is_settled="settled" in evidence.phases):
                at = person.seen[reply.id][0].at if reply.id in person.seen else None
                yield Violation(PROMISE, person.user_id, at, f"reply {reply.turn_seq}.{reply.ordinal} {why}")
            best = max(evidence.told.get(reply.id, ()), key=lambda word: RANKS.get(word, 0), default="")
            if RANKS.get(reply.state, 0) < RANKS.get(best, 0):
                why = f"is {reply.state}, and its provider has said that it is {best}"
                yield Violation(PROMISE, person.user_id, None, f"reply {reply.turn_seq}.{reply.ordinal} {why}")
        yield from _in_order(person)
        yield from _read(evidence, person)


def _wrong(person: Person, reply: ReplyRow, *, is_settled: bool) -> str | None:
    """Say what is wrong with what became of a reply."""
    times = sum(seen.copy == 1 for seen in person.seen.get(reply.id, ()))
    channel = person.row.channel if person.row else ""
    if times > 1:
        return f"was seen {times} times: it is {reply.state}"
    if reply.state in TAKEN:
        return None if times else f"is {reply.state}, and nobody saw it"
    if reply.state == "withheld" or (reply.failure == LOST_TWICE and channel not in MUTE):
        return f"is {reply.state}, and was seen" if times else None
    if reply.state == "unknown":
        return None if reply.given_up_at and channel in MUTE else f"is unknown, and {channel} can be asked"
    if reply.state in OPEN:
        return f"is {reply.state} after all" if is_settled else None
    return f"is {reply.state} ({reply.failure}), and nobody refused it"


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
