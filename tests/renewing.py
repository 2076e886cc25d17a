"""Renew leases as a worker's helper process does."""

from collections.abc import Iterable

from onelane.lanes.clock import LanesClock
from onelane.lanes.lanes import Lanes
from onelane.lanes.renewer import renew
from onelane.model import Lease


def renewed(lanes: Lanes, leases: Iterable[Lease], ttl_s: float, worker: str = "w") -> set[str]:
    """Extend `leases`, by the clock of `lanes`; return the tokens of those that are lost."""
    users = {lease.token: str(lease.user_id) for lease in leases}
    return set(renew(lanes.scripts, worker, users, ttl_s, LanesClock(), lanes._now())[1])
