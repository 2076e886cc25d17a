"""The time that a bot under test lives in: it stands still until the test moves it."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo


class Clock:
    """A clock that a test moves, forward only."""

    def __init__(self, now: datetime | None = None, timezone: str | None = None) -> None:
        """Begin now; `timezone` is that in which `until` reads times."""
        self.now = now or datetime.now(UTC)
        self._zone = ZoneInfo(timezone) if timezone else UTC

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def passes(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let time pass."""
        passed = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if passed < timedelta():
            raise ValueError("a clock goes forward")
        self.now += passed

    def until(self, shown: str) -> None:
        """Let time pass until a clock in the channel's time zone next shows this: `00:05` is after midnight."""
        today = self.now.astimezone(self._zone).date()
        days = (datetime.combine(today + timedelta(n), time.fromisoformat(shown), self._zone) for n in range(3))
        self.now = next(day.astimezone(UTC) for day in days if day > self.now)
