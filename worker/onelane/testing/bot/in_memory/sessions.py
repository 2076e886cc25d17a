"""When a session ends, decided as `sql/functions/session_end_by_policy.sql` does."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from onelane.history import Line
from onelane.model import JsonObject
from onelane.policy import Policy
from onelane.testing.bot.answer import SessionSeen

A_SECOND = timedelta(seconds=1)


@dataclass
class SessionRecord:
    """One session."""

    started_at: datetime
    last_message_at: datetime
    id: UUID = field(default_factory=uuid4)
    status: str = "active"
    escalated_at: datetime | None = None
    ended_at: datetime | None = None
    ended_reason: str | None = None
    state: JsonObject = field(default_factory=dict)
    summary: str | None = None
    lines: list[Line] = field(default_factory=list)

    def end(self, at: datetime, reason: str) -> None:
        """End it, once."""
        if self.status != "ended":
            self.status, self.ended_reason, self.ended_at = "ended", reason, max(at, self.last_message_at)

    def escalate(self, at: datetime) -> None:
        """Hand it to a human."""
        self.status, self.escalated_at = "escalated", at

    def seen(self) -> SessionSeen:
        """Return what a test sees."""
        return SessionSeen(
            id=self.id,
            status=self.status,
            started_at=self.started_at,
            ended_at=self.ended_at,
            ended_reason=self.ended_reason,
            state=self.state,
        )


def end_by_policy(policy: Policy, session: SessionRecord, last_message_at: datetime) -> tuple[datetime, str]:
    """Return when the policy ends a session in which nothing more is written, and why."""
    ends = [(last_message_at + timedelta(seconds=policy.idle_timeout_s), "timeout")]
    if policy.day_start is not None and policy.timezone is not None:
        ends.append((next_day_start(last_message_at, policy.day_start, ZoneInfo(policy.timezone)), "end_of_day"))
    if policy.max_age_s is not None:
        ends.append((session.started_at + timedelta(seconds=policy.max_age_s), "max_age"))
    return min(ends, key=lambda end: end[0])


def is_over(policy: Policy, session: SessionRecord, at: datetime, last_message_at: datetime | None = None) -> bool:
    """Whether what is accepted at an instant belongs to a new session."""
    return end_by_policy(policy, session, last_message_at or session.last_message_at)[0] <= at


def next_day_start(after: datetime, day_start: time, zone: ZoneInfo) -> datetime:
    """Return the first day start that is later."""
    today = after.astimezone(zone).date()
    starts = (day_start_instant(today + timedelta(days=days_on), day_start, zone) for days_on in range(-1, 4))
    return next(start for start in starts if start > after)


def day_start_instant(day: date, day_start: time, zone: ZoneInfo) -> datetime:
    """Return when the zone's clock shows a time: the second time, if twice; if never, the instant of the jump."""
    wanted = datetime.combine(day, day_start)
    early, late = (wanted.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (1, 0))
    if early >= late:  # not in a gap
        return early
    while late - early > A_SECOND:
        middle = (early + (late - early) / 2).replace(microsecond=0)
        if middle.astimezone(zone).replace(tzinfo=None) > wanted:
            late = middle
        else:
            early = middle
    return late
