"""Nothing of a paused user begins."""

from collections.abc import Iterator
from math import inf

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.spans import Spans
from tests.chaos.checker.violation import Violation

PROMISE = "pauses"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Look for turns that were asked for when the pause had been answered, and before a resumption was wanted."""
    for person in evidence.people.values():
        paused = surely_paused(person)
        for begin in person.begins:
            if begin.outcome == "turn" and paused.contains(begin.since, begin.at):
                yield Violation(
                    PROMISE, person.user_id, begin.at, f"message {begin.seq} began although the user was paused"
                )


def surely_paused(person: Person) -> Spans:
    """Tell when a user was paused. A resumption that was given up may take effect at any later time."""
    given_up_at = min((one.at for one in person.commanded("resume") if not one.is_done), default=inf)
    spans = [
        (command.ended_at, min(given_up_at, _resumed(person, command.at)))
        for command in person.commanded("pause")
        if command.is_done and command.answer is not False
    ]
    return Spans((since, until) for since, until in spans if since < until)


def perhaps_paused(person: Person) -> Spans:
    """Tell when a user may have been paused."""
    return Spans((command.at, _resumed(person, command.at, surely=True)) for command in person.commanded("pause"))


def _resumed(person: Person, after: float, *, surely: bool = False) -> float:
    resumptions = (one for one in person.commanded("resume") if one.ended_at > after)
    return next(((one.ended_at if surely else one.at) for one in resumptions), inf)
