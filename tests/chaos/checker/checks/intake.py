"""When nothing is broken, a delivery is answered 2xx at once.

And so it is while somebody else's row is locked, and while Redis answers but cannot be used, or not as before: the
answer follows what Postgres has. While a backlog is worked off that a fault has left, the machine is busy with that.
"""

from collections.abc import Iterator
from math import inf

from tests.chaos.checker.checks.recovery import AFTERMATH_S, BREATH_S, full
from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import Posted
from tests.chaos.checker.spans import Spans
from tests.chaos.checker.violation import Violation

PROMISE = "intake"
ANSWERED_S = 2.0
UNNOTICED = frozenset({"lock-row", "full-redis", "refusing-redis", "evicting-redis", "read-only-redis", "step-clock"})
"""The faults that a delivery must not notice; a locked row is noticed by its own user's."""
REFUSED = "ConnectionRefusedError"
STARTS_MAX_S = 15.0
"""How long a web that was killed may take to listen again: until then its port refuses connections."""


def check(evidence: Evidence) -> Iterator[Violation]:
    """Measure each delivery, without the time in which something else went on."""
    setup = evidence.setup
    others = Spans((one.at, one.until) for one in evidence.faults if one.name not in UNNOTICED)
    crashes = Spans((run.until, run.until) for run in evidence.crashes)
    disturbed = others.joined(crashes).widened(after_s=setup.ttl_s + AFTERMATH_S)
    busy = full(evidence, max(1, setup.workers * setup.slots // 2))
    excuses = disturbed.joined(busy, evidence.stalled.widened(after_s=BREATH_S))
    webs = (one for one in evidence.faults if one.target.startswith("web-") and one.name.startswith(("kill", "deploy")))
    away = Spans((one.at, one.until) for one in webs).widened(after_s=STARTS_MAX_S)
    for person in evidence.people.values():
        locked = Spans((one.at, one.until) for one in evidence.faults if one.user_id == person.user_id)
        yield from _deliveries(person, excuses.joined(locked.widened(after_s=AFTERMATH_S)), away)


def _deliveries(person: Person, excuses: Spans, away: Spans) -> Iterator[Violation]:
    sent: dict[str, float] = {}
    for posted in (one for one in person.said if isinstance(one, Posted)):
        if posted.what == "send":
            sent[posted.delivery] = posted.at
            continue
        since = sent.pop(posted.delivery, inf)
        is_good = posted.what.startswith("2")
        is_away = posted.what == REFUSED and away.touches(since, posted.at)
        if since == inf or is_away or (not is_good and excuses.touches(since, posted.at)):
            continue
        waited_s = excuses.free_s(since, posted.at)
        if not is_good or waited_s > ANSWERED_S:
            yield Violation(
                PROMISE,
                person.user_id,
                since,
                f"{posted.external_id} was answered {posted.what} after {posted.at - since:.3f} s, of which "
                f"{waited_s:.3f} s in peace",
            )
