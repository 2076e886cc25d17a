"""A worker that starts while a server is away waits for it."""

import time
from collections.abc import Callable
from itertools import count
from typing import Final, TypeVar

from onelane.errors import LanesDenied, LanesUnavailable, StoreDenied, StoreUnavailable
from onelane.telemetry.log import event

AWAY_PAUSE_S: Final = 1.0

Found = TypeVar("Found")


def once_there(act: Callable[[], Found]) -> Found:
    """Do what needs a server, as soon as it is there; what no waiting mends is raised."""
    for attempt in count():
        try:
            return act()
        except (StoreDenied, LanesDenied):
            raise
        except (StoreUnavailable, LanesUnavailable) as error:
            if attempt == 0:
                event("worker_waits", error=str(error))
            time.sleep(AWAY_PAUSE_S)
    raise AssertionError("counting does not end")
