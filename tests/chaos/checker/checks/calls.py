"""A model is asked once a step: what it answered is kept, whatever else fails.

A call is cut when its process was killed or stood still, or its lease was lost or forgotten, before the answer was
kept, whole as it may have been: nobody can keep what a dead process had. Such calls are counted apart, and so is the
second of two that were under way at once, as it happens when Redis has forgotten a lease.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from math import inf
from typing import NamedTuple

from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import Call
from tests.chaos.checker.violation import Violation

PROMISE = "calls"
INTERRUPT = "interrupt"
PER_STEP_MAX = 1.01
"""Of batches that nothing throws away; of others, one more for each time that it may happen."""

STRIKES = ("kill", "freeze")
"""How the names of faults begin that cut calls."""
FORGETS = {"flush-redis", "lose-redis", "hang-over-flush", "evicting-redis"}
"""Faults in which Redis forgets leases: the first three all, the last one those that it evicts."""

Step = tuple[str, str, bool]
"""Its batch and key, and whether the batch was redriven by then: that asks anew."""


class Calls(NamedTuple):
    """How often a model was asked, and for how many steps, without the calls that were cut."""

    calls: int
    steps: int
    cut: int
    """How many calls were cut."""
    whole: int
    """How many of those had the model's whole answer."""

    def __str__(self) -> str:
        return f"{self.calls} for {self.steps} steps, and {self.cut} cut, {self.whole} of them after the answer"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Compare the calls with the steps, all channels of a kind together."""
    most = 1 + max((int(policy.get("interrupt_max", 0)) for policy in evidence.setup.channels.values()), default=0)
    for is_interrupted, per_step_max in ((False, PER_STEP_MAX), (True, most)):
        counted = calls_of(evidence, is_interrupted=is_interrupted)
        if counted.calls > per_step_max * counted.steps:
            ratio = f"more than {per_step_max} a step"
            yield Violation(PROMISE, None, None, f"models were asked too often, {ratio}: {counted}")


def calls_of(evidence: Evidence, *, is_interrupted: bool) -> Calls:
    """Count the questions to models on channels of one kind."""
    calls, steps, cut, whole = 0, 0, 0, 0
    for person in evidence.people.values():
        if (_mode(evidence, person) == INTERRUPT) != is_interrupted:
            continue
        for said in _by_step(evidence, person).values():
            was_cut = list(_cut(evidence, person, said))
            asked = sum(call.phase == "begin" for call in said)
            calls += asked - len(was_cut)
            steps += asked > len(was_cut)
            cut += len(was_cut)
            whole += sum(was_cut)
    return Calls(calls, steps, cut, whole)


def _mode(evidence: Evidence, person: Person) -> str:
    mode: str = evidence.setup.channels.get(person.row.channel if person.row else "", {}).get("on_busy", "queue")
    return mode


def _by_step(evidence: Evidence, person: Person) -> dict[Step, list[Call]]:
    redriven = {
        message.id: evidence.at(message.redriven_at) for message in person.messages if message.redriven_at is not None
    }
    steps = defaultdict[Step, list[Call]](list)
    for call in person.calls:
        is_anew = call.at >= redriven.get(call.batch.partition(":")[0], inf)
        steps[call.batch, call.key, is_anew].append(call)
    return steps


def _cut(evidence: Evidence, person: Person, said: list[Call]) -> Iterator[bool]:
    """Yield for each call of a step that was cut whether it had the whole answer by then."""
    begins = [call for call in said if call.phase == "begin"]
    for call, until in pairwise([*begins, None]):
        assert call is not None
        asked_again_at = evidence.ended_at if until is None else until.at
        own = [one.phase for one in said if one.pid == call.pid and call.at <= one.at <= asked_again_at and one != call]
        if "kept" not in own and (_is_second(call, said) or _is_struck(evidence, person, call, asked_again_at)):
            yield "answered" in own


def _is_second(call: Call, said: list[Call]) -> bool:
    """Tell whether another process had asked before, and then kept the answer."""
    others = {one.pid for one in said if one.phase == "begin" and one.at <= call.at} - {call.pid}
    return any(one.phase == "kept" and one.pid in others and one.at >= call.at for one in said)


def _is_struck(evidence: Evidence, person: Person, call: Call, until: float) -> bool:
    """Tell whether the call's process was killed or stood still in this time, or its lease was lost or forgotten."""
    strikes = (fault for fault in evidence.faults if fault.name.startswith(STRIKES) and call.pid in fault.pids)
    forgets = (fault for fault in evidence.faults if fault.name in FORGETS)
    return (
        any(fault.at <= until and call.at <= fault.until for fault in (*strikes, *forgets))
        or any(run.pid == call.pid and call.at <= run.until <= until for run in evidence.crashes)
        or any(lease.taken_over and call.at < lease.at <= until for lease in person.leases)
    )
