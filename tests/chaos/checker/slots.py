"""When a lane had to wait since no worker could take it: each was away, in trouble, or had no slot free."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.holdings import Holding, holdings, out_holdings
from tests.chaos.checker.reach import AFTERMATH_S, of_process, pool_silent, struck
from tests.chaos.checker.spans import FOR_EVER, Span, Spans, crowded


class Kind(NamedTuple):
    """One of the two kinds of lanes."""

    name: str
    held: Callable[[Person], Iterator[Holding]]
    slots: Callable[[Evidence], int]


TURNS = Kind("turns", holdings, lambda evidence: evidence.setup.slots)
REPLIES = Kind("replies", out_holdings, lambda evidence: evidence.setup.send_slots)


def nobody_free(evidence: Evidence, kind: Kind) -> Spans:
    """Tell when none of the workers' processes was there, untroubled and with a free slot, nor had just been."""
    there, busy = _there(evidence), _busy(evidence, kind)
    unable = [
        (span.since, span.until)
        for pid, span in there.items()
        for span in Spans([(-FOR_EVER, span.since + AFTERMATH_S), (span.until, FOR_EVER)]).joined(
            struck(evidence, of_process(evidence, pid)),
            pool_silent(evidence, evidence.dynos.get(pid)),
            crowded(busy[pid], kind.slots(evidence) - 1),
        )
    ]
    return crowded(unable, max(1, len(there)))


def without_workers(evidence: Evidence, at_least: int = 1) -> Spans:
    """Tell when fewer workers were there to lease, each from its first lease to its last, and until it can be felt."""
    at_work = crowded(list(_there(evidence).values()), at_least)
    return Spans((before.until, after.since + AFTERMATH_S) for before, after in pairwise(at_work))


def full_where_workers_are(evidence: Evidence, kind: Kind) -> Spans:
    """Tell when all slots but one were busy of each worker that was there."""
    workers, each = evidence.setup.workers, kind.slots(evidence) - 1
    missing = [span for nr in range(1, workers + 1) for span in without_workers(evidence, nr)]
    busy = [one for some in _busy(evidence, kind).values() for one in some]
    return crowded([*busy, *(span for span in missing for _ in range(each))], max(1, workers * each))


def everybody(evidence: Evidence) -> tuple[Person, ...]:
    """Return all who held a slot, those too of whom nothing may be left."""
    return *evidence.people.values(), *evidence.forgotten.values()


def _there(evidence: Evidence) -> dict[int, Span]:
    """Tell of each process when it was there to lease."""
    seen: dict[int, list[float]] = {}
    for person in everybody(evidence):
        for one in (*person.leases, *person.releases, *person.out_leases, *person.out_releases):
            seen.setdefault(one.pid, []).append(one.at)
    return {pid: Span(min(times), max(times)) for pid, times in seen.items()}


def _busy(evidence: Evidence, kind: Kind) -> dict[int, list[tuple[float, float]]]:
    """Tell by process when slots were taken: each from the call on that leased for it, which a slow Redis draws out."""
    busy = defaultdict[int, list[tuple[float, float]]](list)
    for person in everybody(evidence):
        for held in kind.held(person):
            busy[held.lease.pid].append((held.lease.since, held.until))
    return busy
