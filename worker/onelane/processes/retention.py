"""Forgets sessions that ended RETENTION_DAYS ago, channel by channel, a bounded batch at a time."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from onelane.config import Settings
from onelane.postgres.db import Database
from onelane.telemetry.log import event
from onelane.telemetry.numbers import FORGOTTEN

LOOKS_MAX: Final = 2_000
FORGET_MAX: Final = 50
ROUND_MAX_S: Final = 5.0
FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
FORGET: Final = """
SELECT f.forgotten, f.reached
  FROM set_config('lock_timeout', '50ms', true),
       forget_sessions(%s, clock_timestamp() - %s::interval, %s, %s, %s) f
"""


def days_kept(settings: Settings) -> dict[str, int]:
    """Return for how many days sessions are kept, by channel; without channels that keep them for ever."""
    days = {name: channel.retention_days or settings.retention_days for name, channel in settings.channels.items()}
    return {name: kept for name, kept in days.items() if kept is not None}


class Retention:
    """One worker's share. Each lap goes over all old sessions; what was in use is met again in the next."""

    def __init__(self, database: Database, days: Mapping[str, int]) -> None:
        """`days`: by channel, after how many days its sessions are forgotten."""
        self._database = database
        self._days = days
        self._reached = dict.fromkeys(days, FIRST)

    def forget(self) -> int:
        """Forget what is old, for ROUND_MAX_S; return how many sessions."""
        ends = time.monotonic() + ROUND_MAX_S
        return sum(self._forget_of(channel, ends) for channel in self._days)

    def _forget_of(self, channel: str, ends: float) -> int:
        total, is_lap_over = 0, False
        while not is_lap_over and time.monotonic() < ends:
            age = timedelta(days=self._days[channel])
            row = self._database.row(FORGET, (channel, age, self._reached[channel], LOOKS_MAX, FORGET_MAX))
            assert row is not None  # noqa: S101 - the function answers one row
            is_lap_over = row.reached is None
            self._reached[channel] = row.reached or FIRST
            total += row.forgotten
        if total:
            FORGOTTEN.count("session", total)
            event("sessions_forgotten", channel=channel, count=total)
        return total
