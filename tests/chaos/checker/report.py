"""What a run comes to: its numbers, the broken promises, and the history of the first of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from tests.chaos.checker.checks import calls, calm, coverage, intake, overlaps, recovery
from tests.chaos.checker.evidence import Evidence
from tests.chaos.checker.records import Posted
from tests.chaos.checker.story import tell
from tests.chaos.checker.violation import Violation

SHOWN_MAX = 10

Numbers = Mapping[str, Any]


def numbers(evidence: Evidence) -> Numbers:
    """Count and measure."""
    people = evidence.people.values()
    messages = [message for person in people for message in person.messages]
    runs = [run for person in people for run in person.runs]
    commits = Counter(commit.outcome for person in people for commit in person.commits)
    fails = Counter(fail.outcome for person in people for fail in person.fails)
    posts = Counter(said.what for person in people for said in person.said if isinstance(said, Posted))
    found = list(overlaps.overlaps(evidence))
    struck = [fault for fault in evidence.faults if coverage.has_struck(evidence, fault)]
    recovered = [one.length_s for one in recovery.recoveries(evidence)]
    waited = [wait.unexcused_s for wait in calm.waits(evidence)]
    return {
        "seed": evidence.setup.seed,
        "mutant": evidence.setup.mutant,
        "lasted_s": round(evidence.ended_at - evidence.began_at, 1),
        "users": sum(bool(person.messages) for person in people),
        "messages": len(messages),
        "posts": posts["send"],
        "redeliveries": posts["send"] - len(messages),
        "posts_unanswered_or_refused": sum(count for what, count in posts.items() if not _is_good(what)),
        "forgotten": len(evidence.forgotten),
        "sessions": sum(len(person.sessions) for person in people),
        "replies": sum(len(replies) for person in people for replies in person.replies.values()),
        "batches": sum(len(batch) > 1 for person in people for batch in person.batches.values()),
        "batch_largest": max((len(batch) for person in people for batch in person.batches.values()), default=0),
        "thrown_away": commits["superseded"],
        "rejected": sum(len(person.busy) for person in people),
        "model_calls": str(calls.calls_of(evidence, is_interrupted=False)),
        "model_calls_interrupted": str(calls.calls_of(evidence, is_interrupted=True)),
        "dead": sum(message.state == "dead" for message in messages),
        "redriven": sum(message.redriven_at is not None for message in messages),
        "runs": len(runs),
        "runs_again": len(runs) - len({run.message_id for run in runs}),
        "commits": commits["committed"],
        "commits_refused": commits["fenced"] + fails["fenced"],
        "commits_already": commits["already"] + fails["already"],
        "commits_unknown": commits["unknown"] + fails["unknown"],
        "begins_refused": sum(begin.outcome == "fenced" for person in people for begin in person.begins),
        "failures": fails["retry"] + fails["dead"] + fails["paused"],
        "leases": sum(len(person.leases) for person in people),
        "takeovers": sum(lease.taken_over for person in people for lease in person.leases),
        "workers_died": len({death.pid for death in recovery.deaths(evidence)}),
        "commands": dict(Counter(command.name for person in people for command in person.commands)),
        "faults": dict(sorted(Counter(fault.name for fault in struck).items())),
        "faults_missed": len(evidence.faults) - len(struck),
        "drops": dict(sorted(Counter(fault.detail for fault in struck if fault.detail).items())),
        "overlaps": len(found),
        "overlap_worst_s": _worst(overlap.length_s for overlap in found),
        "overlaps_looked_for": _share(overlaps.judged(evidence), "runs"),
        "recoveries": len(recovered),
        "recoveries_judged": _share(recovery.judged(evidence), "lanes of the dead"),
        "recovery_worst_s": _worst(recovered),
        "answers_judged": _share(intake.judged(evidence), "deliveries"),
        "calms": len(evidence.calms),
        "calm_wait_median_s": round(median(waited), 4) if waited else 0.0,
        "calm_wait_worst_s": _worst(waited),
        "ready_for_each_core": round(median(load.ready_each for load in evidence.loads), 1) if evidence.loads else "?",
        "stalls": len(evidence.stalls),
        "stall_worst_s": _worst(stall.until - stall.since for stall in evidence.stalls),
    }


def as_json(evidence: Evidence, violations: Sequence[Violation]) -> dict[str, Any]:
    """Return the report as JSON has it."""
    return {
        "numbers": dict(numbers(evidence)),
        "broken": dict(Counter(violation.promise for violation in violations)),
        "violations": [violation._asdict() for violation in violations],
        "story": tell(evidence, violations[0]) if violations else [],
    }


def render(evidence: Evidence, violations: Sequence[Violation]) -> str:
    """Word the report for a terminal."""
    counted = numbers(evidence)
    width = max(map(len, counted))
    lines = [f"{name.replace('_', ' '):{width}}  {_worded(value)}" for name, value in counted.items()]
    if not violations:
        return "\n".join([*lines, "", "all promises kept"])
    return "\n".join([*lines, "", *_broken(evidence, violations)])


def _broken(evidence: Evidence, violations: Sequence[Violation]) -> list[str]:
    by_promise = Counter(violation.promise for violation in violations)
    told = ", ".join(f"{promise} {count}" for promise, count in by_promise.most_common())
    hidden = len(violations) - SHOWN_MAX
    return [
        f"broken promises: {told}",
        *(_line(evidence, violation) for violation in violations[:SHOWN_MAX]),
        *([f"… and {hidden} more"] if hidden > 0 else []),
        "",
        "the first one's history:",
        *tell(evidence, violations[0]),
    ]


def _line(evidence: Evidence, violation: Violation) -> str:
    when = "" if violation.at is None else f" at {evidence.when(violation.at)}"
    who = "" if violation.user_id is None else f" of user {violation.user_id}"
    return f"- {violation.promise}{who}{when}: {violation.sentence}"


def _worded(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _share(judged: tuple[int, int], what: str) -> str:
    """Word how many were judged to the end, with nothing that excuses them."""
    return f"{judged[0]:,} of {judged[1]:,} {what}"


def _worst(lengths: Iterable[float]) -> float:
    return round(max(lengths, default=0.0), 3)


def _is_good(what: str) -> bool:
    return what == "send" or what.startswith("2")
