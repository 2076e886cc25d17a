"""No write of a turn after its successor has written, and no lane given on by who no longer holds it.

A write under a fence is known to have happened by some moment (exactly, for a commit: the row says when). A commit,
failure or begin under an older fence that surely came later should have been refused. So it is on lanes of replies with
marks and with what a holder decides; what a provider has answered is taken from anybody.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf
from typing import NamedTuple

from tests.chaos.checker.evidence import CLOCKS_DIFFER_S, Evidence, Person
from tests.chaos.checker.records import Begin, Commit, Fail, Finish, Lease, Mark, Park, Settle
from tests.chaos.checker.violation import Violation

PROMISE = "fences"
WROTE = frozenset({"retry", "later", "dead", "paused"})
"""Outcomes of a failure that Postgres noted."""
MARKED = frozenset({"send", "unknown"})
"""What `begin_sends` answers when it has written its fence, or had before."""
DECISIONS = frozenset({"absent", "resend", "give_up", "withhold"})
"""What only the holder of a lane of replies may store."""
FORGET = frozenset({"flush-redis", "lose-redis", "hang-over-flush", "evicting-redis"})
"""Faults with which Redis may lose its counter."""
Said = Begin | Commit | Fail | Mark | Settle


class Act(NamedTuple):
    """What a turn did under a fence, somewhere between two moments."""

    after: float
    by: float
    fence: int
    what: str
    writes: bool


class Side(NamedTuple):
    """All that is known of a user's lanes of one kind."""

    acts: Sequence[Act]
    said: Sequence[Said]
    leases: Sequence[Lease]
    releases: Sequence[Finish | Park]


def check(evidence: Evidence) -> Iterator[Violation]:
    """Judge every user's acts and releases."""
    for person in evidence.people.values():
        for side in _sides(evidence, person):
            yield from _refused(evidence, person, side)
            yield from _leased_once(evidence, person, side)
            yield from _released_by_holder(evidence, person, side)
            yield from _acted_by_holder(person, side)


def _sides(evidence: Evidence, person: Person) -> Iterator[Side]:
    said: list[Said] = [*person.begins, *person.commits, *person.fails]
    yield Side(list(_acts(evidence, person)), said, person.leases, person.releases)
    sent: list[Said] = [*person.marks, *person.settles]
    yield Side(list(_acts_of_replies(person)), sent, person.out_leases, person.out_releases)


def _refused(evidence: Evidence, person: Person, side: Side) -> Iterator[Violation]:
    acts = sorted(side.acts, key=lambda act: act.after)
    writes = sorted((act for act in acts if act.writes), key=lambda act: act.by)
    newest = _newest(writes)
    written = 0
    for act in acts:
        while written < len(writes) and writes[written].by + CLOCKS_DIFFER_S < act.after:
            written += 1
        if written and newest[written - 1].fence > act.fence:
            newer = newest[written - 1]
            yield Violation(
                PROMISE,
                person.user_id,
                act.by,
                f"{act.what} under fence {act.fence} after {evidence.when(act.after)}, although {newer.what} "
                f"under fence {newer.fence} by {evidence.when(newer.by)}",
            )


def _newest(acts: list[Act]) -> list[Act]:
    """Return beside each the one with the largest fence up to it."""

    def newer(one: Act, other: Act) -> Act:
        return other if other.fence > one.fence else one

    return list(accumulate(acts, newer))


def _acts(evidence: Evidence, person: Person) -> Iterator[Act]:
    takeovers = {lease.fence for lease in person.leases if lease.taken_over}
    for begin in person.begins:
        if begin.outcome == "turn":
            is_first = begin.fence in takeovers
            takeovers.discard(begin.fence)
            yield _act(begin, f"message {begin.seq} began", writes=is_first)
    for commit in person.commits:
        message = person.by_id.get(commit.message_id)
        if commit.outcome == "committed" and message is not None and message.processed_at is not None:
            at = evidence.at(message.processed_at)
            yield Act(at, at, commit.fence, f"message {message.seq} was committed", writes=True)
        elif commit.outcome == "superseded":
            yield _act(commit, f"the batch of message {commit.message_id} was thrown away", writes=True)
    for fail in person.fails:
        if fail.outcome in WROTE:
            yield _act(fail, f"a failure of message {fail.message_id} was noted ({fail.outcome})", writes=True)


def _acts_of_replies(person: Person) -> Iterator[Act]:
    for mark in person.marks:
        if mark.outcome in MARKED:
            yield _act(mark, f"reply {mark.reply_id} was begun ({mark.outcome})", writes=True)
    for settle in person.settles:
        if settle.deed in DECISIONS and settle.outcome == "settled":
            yield _act(settle, f"reply {settle.reply_id} was settled ({settle.deed})", writes=False)


def _act(said: Said, what: str, *, writes: bool) -> Act:
    return Act(said.since, said.at, said.fence, what, writes)


def _leased_once(evidence: Evidence, person: Person, side: Side) -> Iterator[Violation]:
    """See that no fence is given twice, unless Redis' clock was set and its counter lost since: one begins lower."""
    holders: dict[int, Lease] = {}
    stepped_at = min((fault.at for fault in evidence.faults if fault.name == "step-clock"), default=inf)
    lost_at = min((one.at for one in evidence.faults if one.name in FORGET and one.until >= stepped_at), default=inf)
    for lease in (one for one in side.leases if one.at < lost_at):
        first = holders.setdefault(lease.fence, lease)
        if first is not lease:
            yield Violation(
                PROMISE,
                person.user_id,
                lease.at,
                f"fence {lease.fence} was given twice, to the processes {first.pid} and {lease.pid}",
            )


def _released_by_holder(evidence: Evidence, person: Person, side: Side) -> Iterator[Violation]:
    """See that a lane was released only by its newest lease; a later lease's lock forbids it to any earlier one.

    Their times count as well: a Redis that lost its counter, and whose clock was set back, gives lower numbers later.
    """
    own_leases = {lease.token: lease for lease in side.leases}
    leases = sorted(side.leases, key=lambda lease: lease.at)
    newest = list(accumulate(leases, _later))
    given = 0
    for release in sorted(side.releases, key=lambda release: release.since):
        while given < len(leases) and leases[given].at < release.since:
            given += 1
        own = own_leases.get(release.token)
        if own is not None and given and _is_newer(newest[given - 1], own) and _was_obeyed(release):
            yield Violation(
                PROMISE,
                person.user_id,
                release.at,
                f"the lease with fence {own.fence} gave the lane on at {evidence.when(release.at)}, although fence "
                f"{newest[given - 1].fence} had been given by {evidence.when(newest[given - 1].at)}",
            )


def _later(one: Lease, other: Lease) -> Lease:
    return other if other.since > one.since else one


def _is_newer(lease: Lease, own: Lease) -> bool:
    return lease.since > own.at and lease.fence > own.fence


def _acted_by_holder(person: Person, side: Side) -> Iterator[Violation]:
    """See that nobody but the process that holds a lease acts under it: a copy of that process does not."""
    holders = defaultdict[int, set[int]](set)
    for lease in side.leases:
        holders[lease.fence].add(lease.pid)
    for act in side.said:
        if holders[act.fence] and act.pid not in holders[act.fence]:
            what = f"process {act.pid} asked for a {type(act).__name__.lower()} under fence {act.fence}"
            yield Violation(PROMISE, person.user_id, act.at, f"{what}, which {holders[act.fence]} holds")


def _was_obeyed(release: Finish | Park) -> bool:
    return release.is_parked if isinstance(release, Park) else release.released != "lost"
