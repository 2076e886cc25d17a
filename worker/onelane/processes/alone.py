"""Duties fail alone."""

from collections.abc import Callable
from typing import TypeVar

from onelane.errors import LanesUnavailable, StoreUnavailable, describe
from onelane.telemetry.log import event

Done = TypeVar("Done")


def alone(duty: str, act: Callable[[], Done]) -> Done | None:
    """Do a duty, or a part of one: whatever keeps it from being done keeps no other."""
    try:
        return act()
    except (StoreUnavailable, LanesUnavailable) as error:
        event("duty_postponed", duty=duty, error=str(error))
    except Exception as error:  # noqa: BLE001 - the next round may succeed
        event("duty_failed", duty=duty, failure=describe(error))
    return None
