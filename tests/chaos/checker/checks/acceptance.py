"""Whatever was answered 2xx is in the database, once, as it was sent; and in the end it is processed or dead."""

from collections import Counter
from collections.abc import Iterator
from math import inf

from tests.chaos.checker.evidence import CLOCKS_DIFFER_S, Evidence, Person
from tests.chaos.checker.records import Letter
from tests.chaos.checker.rows import MessageRow
from tests.chaos.checker.violation import Violation

PROMISE = "acceptance"
TERMINAL = frozenset({"processed", "dead"})


def check(evidence: Evidence) -> Iterator[Violation]:
    """Compare what the provider sent and was told with the rows."""
    if not any(person.letters for person in evidence.people.values()):
        yield Violation(PROMISE, None, None, "the history has nothing that was sent: there is nothing to judge")
    for person in evidence.people.values():
        stored = {message.external_id: message for message in person.messages}
        for letter in person.letters.values():
            yield from _letter(evidence, person, letter, stored.get(letter.external_id))
        yield from _rows(evidence, person)


def _letter(evidence: Evidence, person: Person, letter: Letter, message: MessageRow | None) -> Iterator[Violation]:
    def broken(at: float, sentence: str) -> Violation:
        return Violation(PROMISE, person.user_id, at, f"{letter.external_id} {sentence}")

    if letter.conflicting_text is not None:
        yield broken(letter.sent_at, f"was sent with two texts, {letter.text!r} and {letter.conflicting_text!r}")
    if letter.acked_at == inf:
        yield broken(letter.sent_at, "was never answered 2xx, however often it was sent")
    if message is None:
        if letter.acked_at < inf:
            yield broken(letter.acked_at, "was answered 2xx and is not in the database")
        return
    yield from _answers(person, letter, message)
    if message.text != letter.text:
        yield broken(letter.sent_at, f"was sent as {letter.text!r} and stored as {message.text!r}")
    accepted_at = evidence.at(message.accepted_at)
    if not letter.sent_at - CLOCKS_DIFFER_S <= accepted_at <= letter.acked_at + CLOCKS_DIFFER_S:
        known = f"it was sent first at {evidence.when(letter.sent_at)} and answered first at "
        known += evidence.when(letter.acked_at)
        yield broken(accepted_at, f"was accepted at {evidence.when(accepted_at)}, by its row; {known}")


def _answers(person: Person, letter: Letter, message: MessageRow) -> Iterator[Violation]:
    stored = {"user_id": person.user_id, "message_id": message.id, "seq": message.seq}
    for told in letter.answers:
        answer = {name: told[name] for name in stored}
        if answer != stored:
            yield Violation(
                PROMISE,
                person.user_id,
                letter.acked_at,
                f"{letter.external_id} is {stored} in the database, and an answer said {answer}",
            )
    firsts = sum(not told["duplicate"] for told in letter.answers)
    if firsts > 1:
        yield Violation(
            PROMISE, person.user_id, letter.acked_at, f"{letter.external_id} was answered as new {firsts} times"
        )


def _rows(evidence: Evidence, person: Person) -> Iterator[Violation]:
    copies = Counter(message.external_id for message in person.messages)
    for message in person.messages:
        problems = []
        if message.external_id not in person.letters:
            problems.append("nobody has sent it")
        if copies[message.external_id] > 1:
            problems.append(f"{message.external_id} has {copies[message.external_id]} rows")
        if message.state not in TERMINAL:
            problems.append(f"it is still {message.state} after all is done")
        if message.state == "dead" and message.attempts != evidence.setup.attempts_max:
            problems.append(f"it died of {message.attempts} attempts, not of {evidence.setup.attempts_max}")
        for problem in problems:
            at = evidence.at(message.accepted_at)
            yield Violation(PROMISE, person.user_id, at, f"message {message.seq} ({message.id}): {problem}")
