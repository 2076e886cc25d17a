"""The duties of a worker that a test does by itself."""

from onelane.bootstrap import Services
from onelane.processes.duties import Duties

PARKED_MAX_S = 3_600.0


def duties_of(services: Services, parked_max_s: float = PARKED_MAX_S) -> Duties:
    """Make the duties of a worker that has these services."""
    needed = (services.database, services.all_lanes, services.sessions, services.failures)
    return Duties(*needed, "a test", parked_max_s=parked_max_s)
