"""An attempt is charged only to a message whose own handler failed: not for a server that is away, nor for another's.

And once each: a message has failed as often as it ran, but for the last time if that went well.

A handler fails by itself when it raises, ends its process, or takes too long because it was told to. It does not when
what it reads of the service fails, when it never began, or when it waits for a loop that another handler has blocked.
"""

from collections import Counter
from collections.abc import Iterator
from math import inf

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import Fail, Run
from tests.chaos.checker.violation import Violation
from tests.chaos.traffic.speech import ask_of

PROMISE = "blame"
CHARGED = frozenset({"retry", "dead", "paused"})
OWN_FAILURES = frozenset({"raised", "crashed"})
LONG = frozenset({"hang"})
UNSEEN_DEATHS = 2
"""After so many deaths a message runs in a child, and may be charged for what kills that: no run may be noted of it."""
SLOW_S = 0.5
"""How much of a turn's time a busy machine may take."""


def check(evidence: Evidence) -> Iterator[Violation]:
    """Look for attempts that somebody else should have been charged for, or nobody."""
    for person in evidence.people.values():
        for fail in person.fails:
            if fail.outcome in CHARGED and (why := _wrongly_charged(evidence, person, fail)):
                message = person.by_id.get(fail.message_id)
                number = message.seq if message else fail.message_id
                sentence = f"message {number} was charged an attempt by process {fail.pid}, and {why}"
                yield Violation(PROMISE, person.user_id, fail.at, sentence)
        yield from _counted_twice(evidence, person)


def _counted_twice(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """Look for messages that failed more often than they ran; a redriven one begins anew."""
    shared = {member for run in person.runs if len(run.members) > 1 for member in run.members}
    runs = Counter(member for run in person.runs for member in run.members)
    for message in person.messages:
        went_well = message.state == "processed" and message.seq in person.replies.keys() | person.together
        is_alone = message.id not in shared  # who was in a batch that failed for another counts its attempts
        is_known = is_alone and message.redriven_at is None and not _may_be_unseen(person, message.id)
        if is_known and message.attempts + went_well > runs[message.id]:
            sentence = f"message {message.seq} has {message.attempts} attempts, and ran {runs[message.id]} times"
            yield Violation(PROMISE, person.user_id, evidence.at(message.accepted_at), f"{sentence} in all")


def _wrongly_charged(evidence: Evidence, person: Person, fail: Fail) -> str | None:
    """Say what speaks for the message; None when it is to blame, or when too little is known."""
    run = _last_run(evidence, person, fail)
    if run is None:
        return None if _may_be_unseen(person, fail.message_id, fail.at) else "its handler never began there"
    if run.result in OWN_FAILURES or run.order is not None or ask_of(run.text).word in LONG:
        return None
    if run.result == "unread":
        return "its handler could not read: that was the service's failure"
    # It ran for too long, and not because it wanted to.
    if evidence.stalled.covered_s(run.at, fail.at) > SLOW_S or _was_frozen(evidence, run, fail):
        return None
    return f"its handler was told to do nothing that takes {fail.at - run.at:.1f} s (it ended as {run.result})"


def _last_run(evidence: Evidence, person: Person, fail: Fail) -> Run | None:
    """Return the run that the charge is for: the last one in that process, or in a child of a worker.

    It had begun when the charge was asked for, which Postgres may have noted much later.
    """
    runs = [
        run
        for run in person.runs
        if fail.message_id in run.members
        and run.at <= fail.since
        and (run.pid == fail.pid or run.pid not in evidence.pids_of_workers)
    ]
    return runs[-1] if runs else None


def _may_be_unseen(person: Person, message_id: str, by: float = inf) -> bool:
    return any(
        begin.message_id == message_id and (begin.deaths or 0) >= UNSEEN_DEATHS
        for begin in person.begins
        if begin.at <= by
    )


def _was_frozen(evidence: Evidence, run: Run, fail: Fail) -> bool:
    return any(
        fail.pid in fault.pids and fault.name.startswith("freeze") and fault.at < fail.at and run.at < fault.until
        for fault in evidence.faults
    )
