"""A storm of replies: how many users see twice or never, when one request in twenty goes wrong."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bench.measuring import OURS, Figures, Rounds, alternate
from bench.peers import slack_sdk_client
from bench.plan import Plan
from bench.result import Goal, Result
from bench.storming import SHARE, Storm, ours, per_10_000, theirs

NAME = "storm"
TITLE = "A storm of replies: doubles and losses per 10,000"
COLUMNS = [
    *("who", "replies", "requests that went wrong", "doubles", "losses", "of which nobody was told"),
    *("said to have failed", "users misordered"),
]
RUNS = 1
COUNTED = ("doubles", "losses", "untold")
NOTES = [
    f"The fake of Slack's API lets {SHARE:.0%} of the requests go wrong, the kind at random, by the same seed.",
    "Accepted, then closed, reset, silent for a second, half an answer, 502; or not, and closed, garbage, 500, 429.",
    "slack_sdk 3.48.0 with its defaults posts again once when the connection breaks, and raises otherwise.",
    "Ours asks Slack what became of a reply, and posts again what Slack certainly has not.",
    "A double is one more copy of a reply that a user saw; a loss is a reply that nobody saw. Ours posts a reply again",
    "once at most: when that went wrong, too, it says that the reply failed.",
]


def measure(plan: Plan) -> Result:
    """Send 10,000 replies, in one round: the seed is fixed."""
    plan = replace(plan, runs=RUNS)
    storm = plan.size(Storm(500, 20), Storm(20, 10))
    runs: dict[str, Callable[[], Figures]] = {OURS: partial(ours, storm)}
    if plan.wants(slack_sdk_client.NAME):
        runs[slack_sdk_client.NAME] = partial(theirs, storm, slack_sdk_client.send)
    rounds = alternate(plan, runs)
    goals = [
        Goal.at_most(what, 0, max(per_10_000(one, name) for one in rounds.found[OURS]))
        for what, name in (("our doubles", "doubles"), ("our losses of which nobody was told", "untold"))
    ]
    return Result.of(plan, NAME, TITLE, rounds, columns=COLUMNS, row=_row, goals=goals, notes=NOTES)


def _row(rounds: Rounds, name: str) -> list[str]:
    return [
        name,
        *(f"{rounds.median(name, figure):,.0f}" for figure in ("replies", "went_wrong")),
        *(f"{max(per_10_000(one, figure) for one in rounds.found[name]):,.0f}" for figure in COUNTED),
        *(f"{rounds.worst(name, figure):,.0f}" for figure in ("told_failed", "out_of_order")),
    ]
