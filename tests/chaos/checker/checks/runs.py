"""What the bot was given is what the database has, and nothing was answered that the bot did not say."""

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import Run
from tests.chaos.checker.violation import Violation

PROMISE = "runs"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Compare the bot's notes with the rows."""
    for person in evidence.people.values():
        for run in person.runs:
            yield from _given(person, run)
        yield from _handled(evidence, person)


def _given(person: Person, run: Run) -> Iterator[Violation]:
    message = person.by_id.get(run.message_id)
    if message is None or person.row is None:
        yield Violation(PROMISE, person.user_id, run.at, f"the bot was given message {run.message_id}: no such message")
        return
    stored = message.seq, message.text
    if (given := (run.seq, run.text)) != stored or run.sender not in person.names:
        yield Violation(PROMISE, person.user_id, run.at, f"the bot was given {given}, and the database has {stored}")


def _handled(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """See that each answered message has a run that went well, in its session, begun before it was committed."""
    good = defaultdict[str, list[Run]](list)
    for run in person.runs:
        if run.result == "ok":
            for member in run.members:
                good[member].append(run)
    for message in person.messages:
        if message.state != "processed" or message.seq not in person.replies:
            continue
        processed_at = evidence.at(message.left_at)
        if not any(run.session_id == message.session_id and run.at <= processed_at for run in good[message.id]):
            yield Violation(
                PROMISE,
                person.user_id,
                processed_at,
                f"message {message.seq} has replies in session {message.session_id}, and the bot never ran it there",
            )
