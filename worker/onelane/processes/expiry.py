"""Forgets what is kept for some days only: what no provider delivers again, webhooks in quarantine, bytes of files."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from onelane.postgres.db import Database
from onelane.processes.alone import alone

FORGET_MAX = 1_000
STEPS_MAX: Final = 24
"""Of a lap over what is kept for the sake of quarantine: it takes half an hour, and little of Postgres."""
ROUND_MAX_S: Final = 5.0
KEPT_DAYS: Final = 8
"""WhatsApp delivers again for up to seven."""
FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
DELIVERIES: Final = "SELECT forgotten, reached FROM forget_deliveries(%(days)s, %(after)s, %(most)s)"
FORGET: Final = (
    "SELECT forget_statuses(clock_timestamp() - make_interval(days => %(days)s), %(most)s) AS forgotten",
    "SELECT forget_quarantined(%(most)s) AS forgotten",
    "SELECT forget_files(%(most)s) AS forgotten",
)


class Expiry:
    """One worker's share."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reached = FIRST
        self._steps = 0

    def forget(self) -> None:
        """Forget what is old, a batch of each kind after the other, for ROUND_MAX_S."""
        ends, self._steps = time.monotonic() + ROUND_MAX_S, STEPS_MAX
        going: list[Callable[[], bool]] = [self._deliveries, *(partial(self._goes_on, query) for query in FORGET)]
        while going:
            going = [batch for batch in going if alone("forget_deliveries", batch)]
            if time.monotonic() > ends:
                return

    def _deliveries(self) -> bool:
        """Forget a batch of deliveries; whether more may follow in this round."""
        row = self._database.row(DELIVERIES, {"days": KEPT_DAYS, "after": self._reached, "most": FORGET_MAX})
        assert row is not None  # noqa: S101 - the function answers one row
        self._reached = row.reached or FIRST
        self._steps -= row.forgotten < FORGET_MAX
        return row.reached is not None and self._steps > 0

    def _goes_on(self, query: str) -> bool:
        """Forget one batch; whether more may follow."""
        row = self._database.row(query, {"days": KEPT_DAYS, "most": FORGET_MAX})
        return row is not None and row.forgotten >= FORGET_MAX
