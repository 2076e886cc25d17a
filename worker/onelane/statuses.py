"""What providers say became of replies: kept and counted until the outbox reads it."""

from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg.types.json import Jsonb

from onelane.db import Database
from onelane.deliveries import Status
from onelane.faults import refusal, sqlstate_of
from onelane.telemetry.numbers import STATUSES

STORE_S: Final = 2.0


class Statuses:
    """The statuses of all channels."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def store(self, channel: str, statuses: Sequence[Status]) -> None:
        """Keep statuses, each once; raise StoreUnavailable, or StoreRefused for what cannot be stored."""
        items = [{**status.model_dump(mode="json", exclude_none=True), "channel": channel} for status in statuses]
        try:
            self._database.rows("SELECT store_statuses(%s)", (Jsonb(items),), within_s=STORE_S)
        except psycopg.Error as error:
            raise refusal(sqlstate_of(error)) from error
        for status in statuses:
            STATUSES.count(status.state)
