"""Who had which lane, from when until when: a slot is busy that long."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from tests.chaos.checker.evidence import Person
from tests.chaos.checker.records import Begin, Commit, Fail, Finish, Lease, Mark, Park, Run, Settle


class Holding(NamedTuple):
    """A lease in use."""

    lease: Lease
    until: float
    """When it was given on or lost; without a word about that, its last sign of life."""
    is_over: bool
    """Whether its holder said so."""


def holdings(person: Person) -> Iterator[Holding]:
    """Go through a user's leases of turns in the order of time."""
    seen = _last_acts(person.leases, [*person.begins, *person.commits, *person.fails])
    for token, at in _last_runs(person).items():
        seen[token] = max(seen.get(token, at), at)
    return _holdings(person.leases, person.releases, seen)


def out_holdings(person: Person) -> Iterator[Holding]:
    """Go through a user's leases of replies in the order of time."""
    seen = _last_acts(person.out_leases, [*person.marks, *person.settles])
    return _holdings(person.out_leases, person.out_releases, seen)


def _holdings(
    leases: Sequence[Lease], releases: Sequence[Finish | Park], seen: Mapping[str, float]
) -> Iterator[Holding]:
    ended: dict[str, float] = {}
    for release in releases:
        if not (isinstance(release, Finish) and release.released == "go_on"):
            ended.setdefault(release.token, release.at)
    for lease in leases:
        until = max(lease.at, seen.get(lease.token, lease.at), ended.get(lease.token, lease.at))
        yield Holding(lease, until, lease.token in ended)


def _last_acts(leases: Sequence[Lease], acts: Sequence[Begin | Commit | Fail | Mark | Settle]) -> dict[str, float]:
    """Tell by lease when something was done under it last.

    A Redis that has lost its counter, and whose clock was set back, gives a fence again: then the later lease has it.
    """
    given = defaultdict[int, list[Lease]](list)
    for lease in leases:
        given[lease.fence].append(lease)
    last: dict[str, float] = {}
    for act in acts:
        held = [lease for lease in given[act.fence] if lease.since <= act.at]
        if held:
            last[held[-1].token] = max(last.get(held[-1].token, act.at), act.at)
    return last


def _last_runs(person: Person) -> dict[str, float]:
    """Tell by lease when its last handler ended, which may outlive it: a thread cannot be stopped."""
    leases = defaultdict[int, list[Lease]](list)
    for lease in person.leases:
        leases[lease.pid].append(lease)
    last: dict[str, float] = {}
    for run in person.runs:
        if held := lease_of(run, leases[run.pid]):
            last[held.token] = max(last.get(held.token, run.until), run.until)
    return last


def lease_of(run: Run, leases: Sequence[Lease]) -> Lease | None:
    """Return under which of its process's leases, in the order of time, a handler ran."""
    nr = bisect_right(leases, run.at, key=attrgetter("at"))
    return leases[nr - 1] if nr else None
