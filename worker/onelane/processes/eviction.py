"""Whether Redis may evict what the lanes are made of: then a worker takes none, unless it was told to."""

import time
from math import inf

from onelane.lanes.lanes import Lanes
from onelane.telemetry.log import event

LOOK_EVERY_S = 5.0


class Eviction:
    """What one worker process knows of Redis' eviction policy, which may change at any time."""

    def __init__(self, lanes: Lanes, *, is_allowed: bool) -> None:
        self._lanes = lanes
        self._is_allowed = is_allowed
        self._policy: str | None = None
        self._looked_at = -inf

    def lets_lease(self) -> bool:
        """Whether lanes may be taken. Looks again every few seconds, and raises LanesUnavailable with Redis away."""
        if not self._is_allowed and time.monotonic() - self._looked_at > LOOK_EVERY_S:
            self._look()
        return self._policy is None

    def _look(self) -> None:
        policy = self._lanes.evicting_policy()
        if policy is not None and self._policy is None:
            event("redis_evicts", policy=policy)
        elif policy is None and self._policy is not None:
            event("redis_keeps")
        self._policy, self._looked_at = policy, time.monotonic()
