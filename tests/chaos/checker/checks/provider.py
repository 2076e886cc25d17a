"""The provider's API hears of a user's messages in their order; whoever asks reads the replies that were stored."""

from collections.abc import Iterator

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import Delivered, Read
from tests.chaos.checker.violation import Violation

PROMISE = "provider"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Judge what the provider's API and the reader of replies have heard."""
    for person in evidence.people.values():
        yield from _known(person)
        yield from _complete(person)
        yield from _in_order(evidence, person)
        yield from _read(evidence, person)


def _known(person: Person) -> Iterator[Violation]:
    """See that every key is a message that the bot had."""
    ran = {run.message_id for run in person.runs}
    for delivered in person.delivered:
        message = person.by_id.get(delivered.key)
        if message is None or message.seq != delivered.seq or delivered.key not in ran:
            yield Violation(
                PROMISE,
                person.user_id,
                delivered.at,
                f"the API heard of message {delivered.seq} under the key {delivered.key}, which the bot never had so",
            )


def _complete(person: Person) -> Iterator[Violation]:
    """See that every answered message was taken by the API: the bot answers only then."""
    taken = {delivered.key for delivered in person.delivered if delivered.answer == "200"}
    for message in person.messages:
        if message.state == "processed" and message.seq in person.replies and message.id not in taken:
            yield Violation(
                PROMISE, person.user_id, None, f"message {message.seq} has replies, and the API has taken none for it"
            )


def _in_order(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """See that a message's key came for the first time after those of all messages answered before it.

    A message that died, or that a human kept from the bot, may be heard of later, from a run that was too late.
    """
    firsts: dict[str, Delivered] = {}
    for delivered in person.delivered:
        firsts.setdefault(delivered.key, delivered)
    latest: Delivered | None = None
    for message in person.messages:
        first = firsts.get(message.id)
        if first is None or message.seq not in person.replies or message.redriven_at is not None:
            continue
        if latest is not None and first.at < latest.at:
            yield Violation(
                PROMISE,
                person.user_id,
                first.at,
                f"the API heard of message {message.seq} before message {latest.seq}, at {evidence.when(latest.at)}",
            )
        latest = first


def _read(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """Compare what was read at the end with the rows."""
    if not person.reads:
        if person.messages and "settled" in evidence.phases:
            yield Violation(PROMISE, person.user_id, None, "nobody has read the replies to this user")
        return
    last: Read = person.reads[-1]
    read = [tuple(reply[name] for name in ("turn_seq", "ordinal", "text", "state")) for reply in last.replies]
    stored = [
        (reply.turn_seq, reply.ordinal, reply.text, reply.state)
        for seq in sorted(person.replies)
        for reply in person.replies[seq]
    ]
    if read != stored:
        differing = next((pair for pair in zip(read, stored, strict=False) if pair[0] != pair[1]), "their number")
        yield Violation(
            PROMISE,
            person.user_id,
            last.at,
            f"the service showed {len(read)} replies, the database has {len(stored)}; first differing: {differing}",
        )
