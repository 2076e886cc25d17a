"""While a human has a session its messages are kept, not handled; a reply that was overtaken is withheld."""

from collections.abc import Iterator

from tests.chaos.checker.escalations import Escalations, was_handled
from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.rows import MessageRow
from tests.chaos.checker.violation import Violation
from tests.chaos.traffic.speech import END_WORD, deed_of

PROMISE = "escalation"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Judge every processed message; where an escalation may have come before or after it, either is right."""
    for person in evidence.people.values():
        escalations = Escalations(evidence, person)
        for message in person.messages:
            if message.state == "processed":
                for problem in _problems(person, message, escalations):
                    at = evidence.at(message.left_at)
                    yield Violation(PROMISE, person.user_id, at, f"message {message.seq} {message.text!r}: {problem}")
        yield from _left_escalated(person, escalations)


def _problems(person: Person, message: MessageRow, escalations: Escalations) -> Iterator[str]:
    handled, states = was_handled(message, person, escalations), _states(person, message)
    is_asked = message.text != END_WORD and not (escalations.rejects and message in person.late)
    if is_asked and handled is False and not escalations.may_have_been(message):
        yield "it was committed without the bot, and nobody had escalated"
    if handled and escalations.must_have_been(message):
        yield "the bot handled it, although a human had the session"
    if "withheld" in states and not escalations.may_have_been(message):
        yield "its replies are withheld, and nobody had escalated"
    if states - {"withheld"} and deed_of(message.text) != "escalate" and escalations.must_have_overtaken(message):
        yield "its replies are not withheld, although a human had taken the session over before they came"


def _states(person: Person, message: MessageRow) -> set[str]:
    return {reply.state for reply in person.replies.get(message.seq, [])}


def _left_escalated(person: Person, escalations: Escalations) -> Iterator[Violation]:
    for session in person.sessions:
        if session.status == "escalated" and not list(escalations.possible):
            yield Violation(PROMISE, person.user_id, None, f"session {session.id} is escalated, and nobody did that")
