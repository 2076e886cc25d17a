"""Whether as many messages wait, of all users together, as may: then webhooks of messages are refused for now.

They are counted now and then, never for a request: what comes in between two counts goes beyond the bound.
"""

import random
import time
from typing import Final

from onelane.errors import StoreUnavailable
from onelane.periodic import Periodic, Usual
from onelane.postgres.db import Database
from onelane.telemetry.log import event

LOOKS_EVERY_S: Final = 1.0
EVERY_S: Final = 5.0
SPREAD: Final = 0.25
"""Processes that start together do not count together: each pause is longer or shorter by up to this part of it."""
PAUSE_FACTOR: Final = 20
"""The pause after a count is so many times as long as counts usually take, at least."""
COUNT_S: Final = 2.0
COUNT: Final = "SELECT count(*) AS waiting FROM (SELECT FROM inbox LIMIT %s) _"


class Fullness:
    """The last count of one process."""

    def __init__(self, database: Database, most: int) -> None:
        """`most` messages may wait; with 0 any number may, and nobody counts."""
        self._database = database
        self.most = most
        self.waiting: int | None = None
        """How many waited when they were last counted, at most `most`; None: they have not been."""
        self._count_at = 0.0
        self._usual_count = Usual()
        self._looking = Periodic("fullness", self.look, LOOKS_EVERY_S)

    def start(self) -> None:
        """Count from now on, in a thread of its own."""
        self._looking.start()

    def stop(self) -> None:
        """Count no more."""
        self._looking.stop()

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be accepted, as far as is known."""
        return self.most > 0 and self.waiting == self.most

    def look(self) -> None:
        """Count, if it is time to: called again and again. With Postgres away the last count stands."""
        if not self.most or time.monotonic() < self._count_at:
            return
        was_full, began = self.is_full, time.monotonic()
        try:
            self.waiting = counted(self._database, self.most)
        except StoreUnavailable:
            return
        finally:
            ended = time.monotonic()
            pause_s = max(EVERY_S, PAUSE_FACTOR * self._usual_count.after(ended - began))
            self._count_at = ended + pause_s * random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311 - nothing secret about it
        if self.is_full != was_full:
            event("inbox_full" if self.is_full else "inbox_has_room", most=self.most)


def counted(database: Database, most: int) -> int:
    """Count the messages that wait, up to `most`."""
    row = database.row(COUNT, (most,), within_s=COUNT_S)
    return row.waiting if row else 0
