"""The web, killed once at each of FAULT_POINTS, in their order; FAULTS names a folder in which deaths are counted."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from onelane.inbox.receiving import Receiving
from onelane.lanes.lanes import Lanes
from onelane.postgres.db import Database

POINTS: Final = tuple(os.environ["FAULT_POINTS"].split(","))
STRUCK = Path(os.environ["FAULTS"])


def _die_at(point: str) -> None:
    """Die if this is the next point; the folder tells how many there were."""
    struck = len(list(STRUCK.iterdir()))
    if POINTS[struck : struck + 1] == (point,):
        (STRUCK / point).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _dying(kind: type, name: str, before: str | None, after: str | None) -> None:
    called: Callable[..., Any] = getattr(kind, name)

    def dying(*arguments: Any, **how: Any) -> Any:
        if before:
            _die_at(before)
        answer = called(*arguments, **how)
        if after:
            _die_at(after)
        return answer

    setattr(kind, name, dying)


_dying(Database, "ask", "before commit", "after commit")
_dying(Lanes, "enqueue_many", None, "after enqueue")
_dying(Receiving, "receive", None, "before answer")

from onelane_web.wsgi import app  # noqa: E402 - it is wired of what dies

__all__ = ["app"]
