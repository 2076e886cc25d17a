"""Intake: what a channel's adapter understood becomes a numbered, committed message on its user's lane."""

import threading
import time
from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg.types.json import Jsonb

from onelane.config import Settings
from onelane.db import Clock, Database, database_clock
from onelane.errors import BacklogFull, LanesUnavailable
from onelane.lanes.lanes import Lanes
from onelane.model import Accepted, Delivery, JsonObject, user_id_of
from onelane.telemetry.log import event
from onelane.telemetry.numbers import DELIVERIES

REDIS_REST_S: Final = 1.0


class Intake:
    """Accepts deliveries: Postgres first, then Redis."""

    def __init__(self, settings: Settings, database: Database, lanes: Lanes, now: Clock = database_clock) -> None:
        self._settings = settings
        self._database = database
        self._lanes = lanes
        self._now = now
        self._rest_until = 0.0
        self._resting = threading.Lock()

    def accept(self, channel: str, deliveries: Sequence[Delivery]) -> list[Accepted]:
        """Commit `deliveries` of one channel and put what waits on its lanes; answers in the order given.

        Once this returns, nothing of it can be lost. Raises StoreUnavailable with Postgres away, and BacklogFull
        before anything is stored. Redis away is no error: the reconciler enqueues what Postgres has.
        """
        if not deliveries:
            return []
        accepted = self._store(channel, deliveries)
        for message in accepted:
            DELIVERIES.count("duplicate" if message.duplicate else "accepted")
        self._enqueue([message for message in accepted if message.is_waiting])
        return accepted

    def _store(self, channel: str, deliveries: Sequence[Delivery]) -> list[Accepted]:
        backlog_max = self._settings.channels[channel].backlog_max or self._settings.backlog_max
        try:
            rows = self._database.rows(
                "SELECT * FROM accept(%s, %s, %s, %s)",
                (channel, Jsonb([_entry(channel, one) for one in deliveries]), backlog_max, self._now()),
            )
        except psycopg.Error as error:
            if error.sqlstate == "OL429":
                raise BacklogFull(f"a user has {backlog_max} waiting messages") from error
            raise
        return [Accepted(**row._asdict()) for row in rows]

    def _enqueue(self, messages: Sequence[Accepted]) -> None:
        """Tell Redis; while it is away, do not make every webhook wait to find out."""
        if not messages or time.monotonic() < self._rest_until:
            return
        try:
            self._lanes.enqueue_many([(message.user_id, message.message_id) for message in messages])
        except LanesUnavailable:
            with self._resting:
                self._rest_until = time.monotonic() + REDIS_REST_S
            event("enqueue_postponed", messages=len(messages))


def _entry(channel: str, delivery: Delivery) -> JsonObject:
    """Word a delivery as accept() takes it."""
    return {
        "user_id": str(user_id_of(channel, delivery.sender)),
        **delivery.model_dump(mode="json"),
    }
