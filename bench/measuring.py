"""Runs in turns: ours, a peer, the next peer, ours again; what is compared was measured within the same round.

Other work on the machine, its temperature and its disk change from minute to minute, and affect neighbours alike. So a
ratio is taken within each round, and the median of the rounds is the result.
"""

import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.costs import cpu_s, machine_cpu_s
from bench.plan import Plan

Figures = dict[str, Any]
"""What one run of one contestant found."""
OURS = "onelane"
PEERS = ("pgbench", "rq", "slack_sdk", "earlier version")
"""How the names of all others begin."""


@dataclass
class Rounds:
    """What all runs found: by contestant, one entry a round."""

    found: dict[str, list[Figures]] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)
    """The machine's load average over a minute, as each round began."""
    others_cpus: list[float] = field(default_factory=list)
    """How many CPUs processes that are not ours kept busy, during each run."""
    seconds: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    """Peers that failed, and how: they have no figures."""

    def values(self, name: str, figure: str) -> list[float]:
        """Return a contestant's figure of each round."""
        return [float(one[figure]) for one in self.found[name]]

    def median(self, name: str, figure: str) -> float:
        """Return the median of a contestant's figure over the rounds."""
        return median(self.values(name, figure))

    def ratios(self, name: str, other: str, figure: str) -> list[float]:
        """Return name's figure ÷ other's of each round."""
        pairs = zip(self.values(name, figure), self.values(other, figure), strict=True)
        return [one / (another or 1e-9) for one, another in pairs]

    def ratio(self, name: str, other: str, figure: str) -> float:
        """Return the median of name's figure ÷ other's, both of the same round."""
        return median(self.ratios(name, other, figure))

    def worst(self, name: str, figure: str) -> float:
        """Return the largest of a contestant's figure."""
        return max(float(one[figure]) for one in self.found[name])


def alternate(plan: Plan, contestants: Mapping[str, Callable[[], Figures]]) -> Rounds:
    """Run all contestants in turns, `plan.runs` times; a peer that fails takes part no longer."""
    rounds = Rounds({name: [] for name in contestants})
    began = time.monotonic()
    for number in range(1, plan.runs + 1):
        rounds.load.append(round(os.getloadavg()[0], 2))
        for name in list(rounds.found):
            plan.report(f"  round {number} of {plan.runs}: {name} (load average {os.getloadavg()[0]:.2f})")
            others = _Others()
            try:
                rounds.found[name].append(contestants[name]())
            except Exception as error:
                if not name.startswith(PEERS):
                    raise
                traceback.print_exc()
                rounds.failed[name] = next(iter(str(error).splitlines()), type(error).__name__)
                del rounds.found[name]
            rounds.others_cpus.append(others.cpus())
    rounds.seconds = round(time.monotonic() - began, 1)
    return rounds


class _Others:
    """The CPU time of other processes of the machine; a load average does not separate them from ours."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before_s = self._used_s()

    def cpus(self) -> float:
        """Return how many CPUs they have kept busy."""
        return round((self._used_s() - self._before_s) / (time.monotonic() - self._began), 2)

    def _used_s(self) -> float:
        return machine_cpu_s() - cpu_s([os.getpid()])
