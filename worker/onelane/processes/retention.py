"""Forgets sessions that ended RETENTION_DAYS ago, a bounded batch at a time; the channels take turns."""

import time
from collections import Counter, deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from onelane.config import Settings
from onelane.postgres.db import Database
from onelane.processes.alone import alone
from onelane.telemetry.log import event
from onelane.telemetry.numbers import FORGOTTEN

LOOKS_MAX: Final = 2_000
FORGET_MAX: Final = 50
LINES_MAX: Final = 1_000
"""What one statement can forget within its time; a session with more goes in several."""
ROUND_MAX_S: Final = 5.0
FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
FORGET: Final = """
SELECT f.forgotten, f.failed, f.reached
  FROM set_config('lock_timeout', '50ms', true),
       forget_sessions(%s, clock_timestamp() - %s::interval, %s, %s, %s, %s) f
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
        self._channels = deque(days)
        self._reached = dict.fromkeys(days, FIRST)

    def forget(self) -> int:
        """Forget what is old, for ROUND_MAX_S; return how many sessions. No channel waits for another's end."""
        ends, going, forgotten = time.monotonic() + ROUND_MAX_S, set(self._days), Counter[str]()
        while going and time.monotonic() < ends:
            channel = self._channels[0]
            self._channels.rotate(-1)
            if channel in going and not alone("forget_sessions", partial(self._goes_on, channel, forgotten)):
                going.remove(channel)
        for channel, count in forgotten.items():
            FORGOTTEN.count("session", count)
            event("sessions_forgotten", channel=channel, count=count)
        return forgotten.total()

    def _goes_on(self, channel: str, forgotten: Counter[str]) -> bool:
        """Forget one batch of a channel; whether more may follow: not after the lap's end, or a session that failed."""
        values = (channel, timedelta(days=self._days[channel]), self._reached[channel])
        row = self._database.row(FORGET, (*values, LOOKS_MAX, FORGET_MAX, LINES_MAX))
        assert row is not None  # noqa: S101 - the function answers one row
        self._reached[channel] = row.reached or FIRST
        if row.forgotten:
            forgotten[channel] += row.forgotten
        return row.reached is not None and not row.failed
