"""The seeded plan of a run's faults: the same for the same seed, length and choice of faults.

A run is made of rounds of about a minute and a half. In each, faults come on a few tracks at once, and those of the bot
on one of their own; then all is left alone until their effects are over; then comes a calm period, in which the service
has to be quick. Before that a worker is killed while nothing else goes on: in a storm there is nearly always something
that excuses whoever takes its lanes too late.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos.faults.catalogue import FAULTS
from tests.chaos.faults.strike import place_of

ROUND_S = 90.0
SETTLE_S = 18.0
"""Between the storm's end and the calm: leases run out, everything starts again, the reconciler makes a round."""
CALM_S = 15.0
ROUND_WITH_CALM_MIN_S = 45.0
"""A shorter round is all storm."""
FIRST_FAULT_S = 2.0
TRACKS = 4
BOT_TRACKS = 2
ALONE = "kill-worker"
"""What happens once a round while nothing else does."""
ALONE_AFTER_S = 7.0
"""How long after all others, whose effects are over; the calm comes when its own are."""
GAP_MEAN_S = 3.0
BOT_GAP_MEAN_S = 9.0
GAPS_MAX = 3
"""How many times the mean a gap lasts at most."""
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
    of_bot = [name for name in names if FAULTS[name].is_of_bot]
    others = [name for name in names if name not in {*rare, *of_bot}]
    tracks = [_Bag(dice, others, GAP_MEAN_S)] * TRACKS + [_Bag(dice, of_bot, BOT_GAP_MEAN_S)] * BOT_TRACKS
    faults: list[Planned] = []
    for nr in range(rounds):
        begins_s, ends_s = nr * length_s + FIRST_FAULT_S, (nr + 1) * length_s - quiet_s
        faults += _ambushes(dice, rare, begins_s, ends_s, len(faults))
        faults += _storm(dice, tracks, begins_s, ends_s, len(faults))
        if has_calm and ALONE in names:
            at_s, target = ends_s + ALONE_AFTER_S, dice.choice(FAULTS[ALONE].targets)
            faults.append(Planned(len(faults), ALONE, target, at_s, 0.0, at_s + PATIENCE_S, dice.getrandbits(32)))
    calms = [Calm((nr + 1) * length_s - CALM_S, (nr + 1) * length_s) for nr in range(rounds)] if has_calm else []
    return Schedule(lasts_s, tuple(faults), tuple(calms))


def _ambushes(dice: Random, names: Collection[str], begins_s: float, ends_s: float, planned: int) -> list[Planned]:
    return [
        Planned(span, name, dice.choice(FAULTS[name].targets), begins_s, 0.0, ends_s, dice.getrandbits(32))
        for span, name in enumerate(names, start=planned)
    ]


def _storm(dice: Random, tracks: Sequence["_Bag"], begins_s: float, ends_s: float, planned: int) -> list[Planned]:
    """Fill the tracks of one round, always the one that is free first."""
    faults: list[Planned] = []
    track_free_at = [begins_s + bag.gap_s() for bag in tracks]
    place_free_at: dict[str, float] = {}

    def target(name: str) -> str | None:
        """Choose one that nothing else strikes then; none if there is no time left for this fault."""
        if at_s + FAULTS[name].lasts_s[0] > ends_s:
            return None
        free = [one for one in FAULTS[name].targets if place_free_at.get(place_of(one), 0.0) <= at_s]
        return dice.choice(free) if free else None

    while (at_s := min(track_free_at)) < ends_s:
        track, lasts_s = track_free_at.index(at_s), 0.0
        if drawn := tracks[track].draw(target):
            name, struck = drawn
            lasts_s = min(dice.uniform(*FAULTS[name].lasts_s), ends_s - at_s)
            span, expires_s = planned + len(faults), min(at_s + PATIENCE_S, ends_s)
            faults.append(Planned(span, name, struck, at_s, lasts_s, expires_s, dice.getrandbits(32)))
            place_free_at[place_of(struck)] = at_s + lasts_s + _aftermath_s(name)
        track_free_at[track] += lasts_s + tracks[track].gap_s()
    return faults


def _aftermath_s(name: str) -> float:
    return STARTS_ANEW_S if name.startswith(("kill", "deploy", "block", "hang")) else AFTERMATH_S


class _Bag:
    """Names of faults, drawn for ever, each as often as its weight says before any comes more often."""

    def __init__(self, dice: Random, names: Collection[str], gap_mean_s: float) -> None:
        self._dice, self._gap_mean_s = dice, gap_mean_s
        self._names = [name for name in sorted(names) for _ in range(FAULTS[name].weight)]
        self._left: list[str] = []

    def gap_s(self) -> float:
        """Draw how long a track rests."""
        return self._gap_mean_s * min(self._dice.expovariate(1.0), GAPS_MAX)

    def draw(self, target: Callable[[str], str | None]) -> tuple[str, str] | None:
        """Draw the first that has a target now, with that; the others stay first."""
        if len(self._left) <= len(self._names):
            self._left += self._dice.sample(self._names, k=len(self._names))
        for nr, name in enumerate(self._left):
            if struck := target(name):
                del self._left[nr]
                return name, struck
        return None
