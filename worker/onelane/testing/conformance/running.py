"""Run the cases against an application, and keep what it answered wrongly."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from onelane.testing.conformance.application import Wsgi, called
from onelane.testing.conformance.case import Case, settings_of
from onelane.testing.conformance.questions import Question, questions

Ids = Callable[[], Iterable[str]]
"""Returns the ids of all messages that the application has taken; one taken twice is there twice."""
SHOWN_MAX = 200


@dataclass
class Result:
    """What came of one provider's cases."""

    provider: str
    cases: int = 0
    questions: int = 0
    wrong: list[str] = field(default_factory=list)
    """A line each: the case, the question, the answer."""


def run(
    application: Wsgi, cases: Sequence[Case], address: Callable[[str], str], ids: Ids | None = None
) -> list[Result]:
    """Ask everything about all cases; `address` gives the URL of a provider's channel."""
    return [
        _run(application, [case for case in cases if case.provider == provider], address(provider), ids)
        for provider in dict.fromkeys(case.provider for case in cases)
    ]


def _run(application: Wsgi, cases: Sequence[Case], url: str, ids: Ids | None) -> Result:
    result, taken = Result(cases[0].provider, len(cases)), Taken(ids)
    secret = settings_of(result.provider)["secrets"][0]
    for case in cases:
        for question in questions(case, url, secret):
            result.questions += 1
            result.wrong += [
                f"{case.name}, {question.about}: {why}" for why in _wrong(application, case, question, taken)
            ]
    return result


def _wrong(application: Wsgi, case: Case, question: Question, taken: "Taken") -> Iterator[str]:
    answer = called(application, "GET" if case.is_get else "POST", question.request)
    if not question.is_right(answer.status, answer.body):
        yield f"{answer.status} {answer.body[:SHOWN_MAX]!r}"
    if question.is_delivered:
        taken.expect(case)
    yield from taken.wrong()


class Taken:
    """The messages that the application must have, each once."""

    def __init__(self, ids: Ids | None) -> None:
        """Count from what it has before the first case; without `ids` nothing is asked."""
        self._ids = ids
        self._before = Counter(self._now())
        self._messages: set[str] = set()
        self._others: set[str] = set()
        self._reported: set[str] = set()

    def expect(self, case: Case) -> None:
        """Expect the messages of a case; what else has an id (an event, an echo, another name) may be there as well."""
        for item in case.expected.get("items", []):
            is_message = item["type"] == "delivery" and "kind" not in item
            if name := item.get("external_id"):
                (self._messages if is_message else self._others).add(name)

    def wrong(self) -> Iterator[str]:
        """Say of each message that is missing, there twice or unknown, once."""
        if self._ids is None:
            return
        now = Counter(self._now()) - self._before
        for name in sorted({*now, *self._messages} - self._reported):
            least, most = int(name in self._messages), int(name in self._messages | self._others)
            if not least <= now[name] <= most:
                self._reported.add(name)
                yield f"message {name} is there {now[name]} times"

    def _now(self) -> Iterable[str]:
        return self._ids() if self._ids else ()
