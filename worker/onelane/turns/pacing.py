"""How long a lane may use a slot, and how long it waits after a failure."""

import random
import time
from typing import Final
from uuid import UUID

from onelane.config import Settings
from onelane.lanes.renewer import RENEWALS_PER_TTL
from onelane.outcomes import Settled, SettleOutcome

LATER_MIN_S = 1.0
"""A handler that asks for less would run without a pause."""
DOUBLINGS_MAX = 30
SUSPECT_PAUSE_S = 0.5
PARKED_SLACK_S = 3_600.0
"""What leases, outages and rate limits set ahead is less."""

OUTAGE_PAUSE_S: Final = 2.0
OUTAGE_PAUSE_MAX_S: Final = 60.0
OUTAGES_MAX: Final = 10_000


class Quantum:
    """What a lane may use of a slot before others have their turn."""

    def __init__(self, settings: Settings) -> None:
        self.turns_left = settings.quantum_turns
        # A lease that nobody asked about for longer than a renewal takes may have been lost.
        self._ends = time.monotonic() + min(settings.quantum_s, settings.lock_ttl_s / RENEWALS_PER_TTL)

    @property
    def is_used_up(self) -> bool:
        """Whether the lane goes to the end of the due order now."""
        return self.turns_left <= 0 or time.monotonic() >= self._ends


class Outages:
    """How often in a row each lane met an outage here, of the lanes that did so last."""

    def __init__(self) -> None:
        self._met: dict[UUID, int] = {}
        """Written by the lane's own slot, one key at a time."""

    def pause_s(self, user_id: UUID) -> float:
        """Count an outage, and return how long the lane is parked: longer each time."""
        met = self._met.pop(user_id, 0) + 1
        if len(self._met) >= OUTAGES_MAX:
            self._met = {}
        self._met[user_id] = met
        return jittered(min(OUTAGE_PAUSE_MAX_S, OUTAGE_PAUSE_S * 2 ** min(met - 1, 10)))

    def are_over(self, user_id: UUID) -> None:
        """Forget what the lane met."""
        self._met.pop(user_id, None)


def pause_s(settings: Settings, settled: Settled) -> float:
    """Return how long the lane waits for the next run: longer after each failure, or as the handler asked while it may.

    What was stale or superseded runs again at once, and so do the messages of a batch that was divided.
    """
    if settled.outcome in {SettleOutcome.STALE, SettleOutcome.SUPERSEDED}:
        return 0
    if (later := settled.later) is None:
        return 0 if settled.attempts == 0 else backoff_s(settings, settled.attempts or 1)
    wanted_s = backoff_s(settings, later.laters) if later.asked_s is None else max(later.asked_s, LATER_MIN_S)
    return min(wanted_s, later.left_s)


def parked_max_s(settings: Settings) -> float:
    """Return for how long a lane is set ahead at most: what waits for longer was set by hand, or by another clock."""
    return max(settings.retry_max_s, settings.later_max_s) + PARKED_SLACK_S


def backoff_s(settings: Settings, failures: int) -> float:
    """Wait longer after every failure, up to a bound, and never in step with others."""
    return jittered(min(settings.retry_max_s, settings.retry_base_s * 2 ** min(failures - 1, DOUBLINGS_MAX)))


def jittered(seconds: float) -> float:
    """Take off up to a half at random, so that many do not come back in step."""
    return seconds * random.uniform(0.5, 1)  # noqa: S311 - nothing secret about it
