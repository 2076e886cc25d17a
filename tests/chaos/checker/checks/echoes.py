"""What a colleague has written from the provider's own app is one line, for which the bot never runs."""

from collections.abc import Iterator

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.violation import Violation

PROMISE = "echoes"
KIND = "echo"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Compare what was answered 2xx with the lines, and the lines with what the bot was given."""
    for person in evidence.people.values():
        echoes = [line for line in person.events if line.kind == KIND]
        for command in person.commanded(KIND):
            if command.is_done and (count := sum(line.external_id == command.message_id for line in echoes)) != 1:
                sentence = f"{command.message_id} was answered 2xx, and is in {count} lines"
                yield Violation(PROMISE, person.user_id, command.ended_at, sentence)
        yield from _handled(person, frozenset(line.id for line in echoes))


def _handled(person: Person, echoes: frozenset[str]) -> Iterator[Violation]:
    for run in person.runs:
        if run.members & echoes:
            yield Violation(PROMISE, person.user_id, run.at, f"the bot was given what a colleague wrote, as {run.seq}")
