"""When nothing is broken that a delivery needs, it is answered 2xx at once.

It needs the web to which it was sent, Postgres, and a Redis that answers: not the workers, not the providers' APIs, nor
the other web. And so it is answered while somebody else's row is locked, and while Redis answers but cannot be used, or
not as before: the answer follows what Postgres has.
"""

from collections.abc import Callable, Iterator

from tests.chaos.checker.checks.recovery import BREATH_S
from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.reach import AFTERMATH_S, place_of, pool_silent, postgres_away, struck, struck_redis
from tests.chaos.checker.records import Fault, Posted
from tests.chaos.checker.spans import Spans
from tests.chaos.checker.violation import Violation

PROMISE = "intake"
ANSWERED_S = 2.0
UNNOTICED = frozenset({"full-redis", "refusing-redis", "evicting-redis", "read-only-redis", "step-clock"})
"""The faults of Redis that a delivery must not notice."""
REFUSED = "ConnectionRefusedError"
STARTS_MAX_S = 15.0
"""How long a web that was killed may take to listen again: until then its port refuses connections."""
SENDER = "provider"
"""Who measures how long an answer takes."""


def check(evidence: Evidence) -> Iterator[Violation]:
    """Measure each delivery, without the time in which something else went on."""
    excuses = Excuses(evidence)
    for person in evidence.people.values():
        for posted, since in _answers(person):
            if not excuses.has(person, posted, since):
                waited_s = excuses.waited_s(person, posted, since)
                yield Violation(
                    PROMISE,
                    person.user_id,
                    since,
                    f"{posted.external_id} was answered {posted.what} after {posted.at - since:.3f} s, of which "
                    f"{waited_s:.3f} s in peace",
                )


def judged(evidence: Evidence) -> tuple[int, int]:
    """Count the deliveries of which every moment was judged, and all."""
    excuses = Excuses(evidence)
    answers = [(person, *one) for person in evidence.people.values() for one in _answers(person)]
    good = sum(not excuses.of(person, posted.web).touches(since, posted.at) for person, posted, since in answers)
    return good, len(answers)


class Excuses:
    """When a delivery may be answered late, or otherwise: by who sent it, and to which web."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        servers = postgres_away(evidence).joined(struck(evidence, lambda fault: place_of(fault) == SENDER))
        redis = struck_redis(evidence, lambda fault: fault.name not in UNNOTICED).widened(after_s=AFTERMATH_S)
        self._all = servers.joined(redis, evidence.stalled.widened(after_s=BREATH_S))
        self._known: dict[tuple[str, str], Spans] = {}

    def of(self, person: Person, web: str) -> Spans:
        """Tell when, of a delivery of this person's to this web."""
        if (person.user_id, web) not in self._known:
            own = struck(self._evidence, self._is_of(web), lambda fault: fault.user_id == person.user_id)
            self._known[person.user_id, web] = self._all.joined(own, pool_silent(self._evidence, web))
        return self._known[person.user_id, web]

    def has(self, person: Person, posted: Posted, since: float) -> bool:
        """Tell whether a delivery was answered as it should, or had an excuse."""
        is_good, is_late = posted.what.startswith("2"), posted.at - since > ANSWERED_S
        if is_good and not is_late:
            return True
        excuses = self.of(person, posted.web)
        if is_good or (is_late and self._evidence.crowded.touches(since, posted.at)):
            return self.waited_s(person, posted, since) <= ANSWERED_S
        is_away = posted.what == REFUSED and self._away(posted.web).touches(since, posted.at)
        return is_away or excuses.touches(since, posted.at)

    def waited_s(self, person: Person, posted: Posted, since: float) -> float:
        """Measure how long the sender waited, without what excuses that, on a machine that is not crowded."""
        return self.of(person, posted.web).joined(self._evidence.crowded).free_s(since, posted.at)

    def _away(self, web: str) -> Spans:
        is_of = self._is_of(web)
        return struck(
            self._evidence,
            lambda fault: is_of(fault) and fault.name.startswith(("kill", "deploy")),
            after_s=STARTS_MAX_S,
        )

    @staticmethod
    def _is_of(web: str) -> Callable[[Fault], bool]:
        return lambda fault: place_of(fault) == web


def _answers(person: Person) -> Iterator[tuple[Posted, float]]:
    """Go through the answers to this person's deliveries, and why there was none; tell when each was sent."""
    sent: dict[str, Posted] = {}
    for posted in (one for one in person.said if isinstance(one, Posted)):
        if posted.what == "send":
            sent[posted.delivery] = posted
        elif asked := sent.pop(posted.delivery, None):
            yield posted._replace(web=asked.web), asked.at
