"""How long a lane may use a slot, and how long it waits after a failure."""

import random
import time

from onelane.config import Settings
from onelane.lanes.renewer import RENEWALS_PER_TTL


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


def backoff_s(settings: Settings, attempts: int) -> float:
    """Wait longer after every failure, up to a bound, and never in step with others."""
    return jittered(min(settings.retry_max_s, settings.retry_base_s * 2 ** (attempts - 1)))


def jittered(seconds: float) -> float:
    """Take off up to a half at random, so that many do not come back in step."""
    return seconds * random.uniform(0.5, 1)  # noqa: S311 - nothing secret about it
