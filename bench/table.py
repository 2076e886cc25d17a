"""Tables: for the terminal, and for the document."""

from statistics import median

from bench.result import Goal, Result

LEFT = {"", "who", "with", "order", "the message at hand"}
"""Columns of text; all others are numbers, which are aligned to the right."""
NOT_MEASURED = "not measured"


def in_terminal(result: Result) -> str:
    """Format a result for a terminal."""
    lines = [f"{result.title}", "", *_aligned(result.columns, result.rows), ""]
    lines += [_goal(goal) for goal in result.goals]
    lines += [f"  {note}" for note in [*result.notes, *_judgement(result)]]
    return "\n".join([*lines, f"  {_circumstances(result)}", ""])


def in_markdown(result: Result) -> str:
    """Format a result for the document."""
    rule = ["---" if column in LEFT else "--:" for column in result.columns]
    rows = [result.columns, rule, *result.rows]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    goals = [_listed(goal) for goal in result.goals]
    notes = [*result.notes, *_judgement(result), _circumstances(result)]
    return "\n".join([*lines, "", *goals, *([""] if goals else []), " ".join(notes)])


def _aligned(columns: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in [columns, *rows]) for at in range(len(columns))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column in LEFT else cell.rjust(width)
            for cell, column, width in zip(row, columns, widths, strict=True)
        ).rstrip()
        for row in [columns, *rows]
    ]


def _goal(goal: Goal) -> str:
    return f"  {_verdict(goal):8} {goal.text} — {goal.measured or NOT_MEASURED}{_spread(goal)}"


def _listed(goal: Goal) -> str:
    return f"- {goal.text} — **{goal.measured or NOT_MEASURED}**{_spread(goal)}, {_verdict(goal)}".removesuffix(", ")


def _spread(goal: Goal) -> str:
    return f" ({goal.spread})" if goal.spread else ""


def _verdict(goal: Goal) -> str:
    return "reached" if goal.is_reached else "missed" if goal.measured else ""


def _judgement(result: Result) -> list[str]:
    """Say what the judgement of all runs' rows is; nothing of a claim whose runs leave none."""
    verdicts = {name: [one["verdict"] for one in found if "verdict" in one] for name, found in result.found.items()}
    broken = [(name, rules) for name, some in verdicts.items() for rules in some]
    faults = [f"{name}, {rule}: {times}" for name, rules in broken for rule, times in rules.items()]
    if not any(verdicts.values()):
        return []
    return [f"Each run's rows were judged: {'; '.join(faults) or 'nothing lost, doubled or out of order'}."]


def _circumstances(result: Result) -> str:
    loads = ", ".join(f"{load:.2f}" for load in result.load)
    others = f"{median(result.others_cpus):.2f}, at most {max(result.others_cpus):.2f}" if result.others_cpus else "?"
    quick = "Small sizes, which mean little. " if result.is_quick else ""
    busy = "Others kept the machine busy: these figures mean less. " if result.is_busy else ""
    rounds = f"{result.runs} rounds" if result.runs > 1 else "One round"
    return (
        f"{quick}{busy}{rounds}, {result.at}, {result.machine}; load average as each round began: {loads}; "
        f"CPUs that other processes kept busy meanwhile: {others}."
    )
