"""What receives webhooks, with nothing behind it: what would be stored is kept in lists."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from onelane.channels import Inbound, Provider
from onelane.deliveries import Status
from onelane.inbox.intake import Intake
from onelane.inbox.quarantine import Quarantine
from onelane.inbox.receiving import Receiving
from onelane.inbox.statuses import Statuses
from onelane.postgres.breaker import Breaker


class KeptStatuses:
    """Statuses in a list, or what is to go wrong."""

    def __init__(self) -> None:
        self.stored: list[Status] = []
        self.failure: Exception | None = None
        self.within_s = 0.0
        """What it was given the last time."""

    def note(self, _channel: str, statuses: Sequence[Status], within_s: float = 0.0) -> None:
        self.within_s = within_s
        if self.failure:
            raise self.failure
        self.stored += statuses


class KeptRequests:
    """A quarantine in a list, or what is to go wrong."""

    def __init__(self) -> None:
        self.kept: list[tuple[Inbound, list[str]]] = []
        self.failure: Exception | None = None

    def keep(self, _channel: str, request: Inbound, reasons: Sequence[str], *_within_s: float) -> None:
        if self.failure:
            raise self.failure
        self.kept.append((request, list(reasons)))


def receiving(
    providers: Mapping[str, Provider],
    intake: object,
    statuses: object | None = None,
    quarantine: object | None = None,
    probe: Callable[[], object] = lambda: None,
) -> Any:
    """Receive for `providers` into what is given, or into new lists."""
    return Receiving(
        providers,
        Breaker(probe),
        cast("Intake", intake),
        cast("Statuses", statuses or KeptStatuses()),
        cast("Quarantine", quarantine or KeptRequests()),
    )
