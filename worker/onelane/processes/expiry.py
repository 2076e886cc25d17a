"""Forgets what is kept for some days only: what no provider delivers again, webhooks in quarantine, bytes of files."""

import time
from functools import partial
from typing import Final

from onelane.postgres.db import Database
from onelane.processes.alone import alone

FORGET_MAX = 1_000
ROUND_MAX_S: Final = 5.0
KEPT_DAYS: Final = 8
"""WhatsApp delivers again for up to seven."""
OLD: Final = "clock_timestamp() - make_interval(days => %(days)s)"
FORGET: Final = (
    f"SELECT forget_deliveries({OLD}, %(most)s) AS forgotten",
    f"SELECT forget_statuses({OLD}, %(most)s) AS forgotten",
    "SELECT forget_quarantined(%(most)s) AS forgotten",
    "SELECT forget_files(%(most)s) AS forgotten",
)


class Expiry:
    """One worker's share."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def forget(self) -> None:
        """Forget what is old, a batch of each kind after the other, for ROUND_MAX_S."""
        ends, going = time.monotonic() + ROUND_MAX_S, FORGET
        while going:
            going = tuple(query for query in going if alone("forget_deliveries", partial(self._goes_on, query)))
            if time.monotonic() > ends:
                return

    def _goes_on(self, query: str) -> bool:
        """Forget one batch; whether more may follow."""
        row = self._database.row(query, {"days": KEPT_DAYS, "most": FORGET_MAX})
        return row is not None and row.forgotten >= FORGET_MAX
