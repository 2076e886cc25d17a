"""The channels that are broken, as Postgres knows: another process may have found out."""

from contextlib import suppress
from typing import Final

import psycopg

from onelane.errors import StoreUnavailable
from onelane.periodic import Periodic
from onelane.postgres.db import Database

READ_EVERY_S: Final = 5.0
BROKEN = "SELECT channel FROM channel_holds WHERE broken_at IS NOT NULL"


class BrokenChannels:
    """What was read last, by a thread of its own: whoever asks waits for nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: frozenset[str] = frozenset()
        self._reading = Periodic("broken channels", self.read, READ_EVERY_S)

    def start(self) -> None:
        """Read again and again from now on."""
        self._reading.start()

    def stop(self) -> None:
        """Read no more."""
        self._reading.stop()

    def read(self) -> None:
        """Read once; with Postgres away, what was known stays."""
        with suppress(StoreUnavailable, psycopg.Error):
            self._known = frozenset(row.channel for row in self._database.rows(BROKEN))

    def has(self, channel: str) -> bool:
        """Whether nothing of a channel is sent until it is mended."""
        return channel in self._known
