"""The check of what waits in all."""

from typing import Final

from onelane.doctor.finding import Deployment, Finding, ok, warning
from onelane.inbox.fullness import counted

NEAR: Final = 0.8
"""From this part of the bound on it is time to look."""


def inbox_has_room(deployment: Deployment) -> Finding:
    """Check that far fewer messages wait than BACKLOG_TOTAL_MAX: with so many every webhook is refused."""
    most = deployment.settings.backlog_total_max
    if not most:
        return ok("any number of messages may wait: BACKLOG_TOTAL_MAX is 0")
    waiting = counted(deployment.database, most)
    found = f"messages that wait: {waiting:,} of {most:,}"
    if waiting < NEAR * most:
        return ok(found)
    refused = "every webhook is refused with 503" if waiting == most else "soon every webhook is refused with 503"
    return warning(f"{found}: {refused}", "start more workers; onelane lanes lists who waits for longest")
