"""Replies that failed become events of their users: a line of history, and a turn where the bot has `on_event`."""

import time
from math import inf
from typing import Final
from uuid import UUID

from onelane.errors import StoreUnavailable
from onelane.lanes.arrivals import Arrival
from onelane.lanes.enqueueing import Enqueueing
from onelane.postgres.db import Database
from onelane.telemetry.log import event

FAILURES_MAX: Final = 100
"""In one call: each takes its user's row."""


class Failures:
    """The failures that no bot knows of yet."""

    def __init__(self, database: Database, lanes: Enqueueing) -> None:
        """`lanes` are those of turns."""
        self._database = database
        self._lanes = lanes

    def tell(self, within_s: float | None = None) -> int:
        """Make events of failures, the oldest first, and put what waits on its lanes; return how many.

        Each becomes one event, whoever calls; what cannot be done now, or `within_s`, is left to a later call, and to
        the reconciler.
        """
        ends = inf if within_s is None else time.monotonic() + within_s
        try:
            row = self._database.row("SELECT tell_failures(%s) AS told", (FAILURES_MAX,), within_s=within_s)
        except StoreUnavailable as error:
            event("duty_postponed", duty="tell_failures", error=str(error))
            return 0
        told = row.told if row else []
        waiting = [Arrival(UUID(one["user_id"]), UUID(one["message_id"])) for one in told if one["is_waiting"]]
        self._lanes.enqueue(waiting, ends)
        return len(told)
