"""The seeded plan of a run's faults: the same for the same seed, length and choice of faults.

A run is made of rounds of about a minute and a half. In each, faults come on a few tracks at once; then all is left
alone until their effects are over; then comes a calm period, in which the service has to be quick.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from tests.chaos.faults.catalogue import FAULTS
from tests.chaos.faults.strike import place_of

ROUND_S = 90.0
SETTLE_S = 12.0
"""Between the last fault's end and the calm: leases run out, everything starts again, the reconciler makes a round."""
CALM_S = 15.0
ROUND_WITH_CALM_MIN_S = 45.0
"""A shorter round is all storm."""
FIRST_FAULT_S = 2.0
TRACKS = 4
GAP_MEAN_S = 1.8
GAP_MAX_S = 8.0
AFTERMATH_S = 1.0
"""Between two faults of the same place."""
PATIENCE_S = 3.0
"""How long a fault waits for a target that is just being started, or still struck by another."""
STARTS_ANEW_S = 5.0
"""What a dyno takes to run again after a kill or a deploy: until then another fault would strike nothing."""


@dataclass(frozen=True)
class Planned:
    """One fault to come. Times are seconds since the storm's beginning."""

    span: int
    name: str
    target: str
    begins_s: float
    lasts_s: float
    expires_s: float
    """When it is given up, if its target was not there until then."""
    dice: int
    """The seed of what else the fault leaves to chance."""

    @property
    def ends_s(self) -> float:
        """When it is over, unless healing takes longer."""
        return self.begins_s + self.lasts_s


@dataclass(frozen=True)
class Calm:
    """A period without any fault."""

    begins_s: float
    ends_s: float


@dataclass(frozen=True)
class Schedule:
    """What is to happen in a storm."""

    lasts_s: float
    faults: tuple[Planned, ...]
    calms: tuple[Calm, ...]


def plan(seed: int, lasts_s: float, names: Collection[str] = FAULTS) -> Schedule:
    """Plan a storm of these faults; without any it is one long calm."""
    if not names:
        return Schedule(lasts_s, (), (Calm(0.0, lasts_s),))
    dice = Random(f"faults {seed}")
    rounds = max(1, round(lasts_s / ROUND_S))
    length_s = lasts_s / rounds
    has_calm = length_s >= ROUND_WITH_CALM_MIN_S
    quiet_s = SETTLE_S + CALM_S if has_calm else 0.0
    rare = [name for name in names if FAULTS[name].is_rare]
    bag = _endless(dice, [name for name in names if name not in rare])
    faults: list[Planned] = []
    for nr in range(rounds):
        begins_s, ends_s = nr * length_s + FIRST_FAULT_S, (nr + 1) * length_s - quiet_s
        faults += _ambushes(dice, rare, begins_s, ends_s, len(faults))
        faults += _storm(dice, bag, begins_s, ends_s, len(faults))
    calms = [Calm((nr + 1) * length_s - CALM_S, (nr + 1) * length_s) for nr in range(rounds)] if has_calm else []
    return Schedule(lasts_s, tuple(faults), tuple(calms))


def _ambushes(dice: Random, names: Collection[str], begins_s: float, ends_s: float, planned: int) -> list[Planned]:
    return [
        Planned(span, name, dice.choice(FAULTS[name].targets), begins_s, 0.0, ends_s, dice.getrandbits(32))
        for span, name in enumerate(names, start=planned)
    ]


def _storm(dice: Random, bag: Iterator[str], begins_s: float, ends_s: float, planned: int) -> list[Planned]:
    """Fill the tracks of one round, always the one that is free first."""
    faults: list[Planned] = []
    tracks = [begins_s + _gap(dice) for _ in range(TRACKS)]
    free_at: dict[str, float] = {}
    while (at_s := min(tracks)) < ends_s and (name := next(bag, None)) is not None:
        track = tracks.index(at_s)
        lasts_s = min(dice.uniform(*FAULTS[name].lasts_s), ends_s - at_s)
        target = _free_target(dice, name, at_s, free_at)
        if target is not None:
            span, expires_s = planned + len(faults), min(at_s + PATIENCE_S, ends_s)
            faults.append(Planned(span, name, target, at_s, lasts_s, expires_s, dice.getrandbits(32)))
            free_at[place_of(target)] = at_s + lasts_s + _aftermath_s(name)
        tracks[track] += lasts_s + _gap(dice)
    return faults


def _free_target(dice: Random, name: str, at_s: float, free_at: Mapping[str, float]) -> str | None:
    free = [target for target in FAULTS[name].targets if free_at.get(place_of(target), 0.0) <= at_s]
    return dice.choice(free) if free else None


def _aftermath_s(name: str) -> float:
    return STARTS_ANEW_S if name.startswith(("kill", "deploy", "block", "hang")) else AFTERMATH_S


def _gap(dice: Random) -> float:
    return min(dice.expovariate(1 / GAP_MEAN_S), GAP_MAX_S)


def _endless(dice: Random, names: Collection[str]) -> Iterator[str]:
    """Draw names for ever, each as often as its weight says before any comes more often."""
    weighted = [name for name in sorted(names) for _ in range(FAULTS[name].weight)]
    while weighted:
        yield from dice.sample(weighted, k=len(weighted))
