"""When sessions end, written a second time: plain Python and zoneinfo, sharing nothing with the SQL it judges.

The model gets what happened to one user in the order in which it takes effect: messages by number, a redriven one where
it runs, what a handler did when its turn commits, a command after the messages it covers. It knows no worker, no sweep,
no cache, no clock but the events'.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

EXPLICIT = ("handler", "user_request")
STEP = timedelta(minutes=15)
"""Clocks change at a multiple of this, in UTC."""
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Policy:
    idle: timedelta = timedelta(hours=7)
    day_start: time | None = None
    zone: str | None = None
    max_age: timedelta | None = None
    escalation: timedelta = timedelta(hours=7)

    def end(self, started_at: datetime, last_message_at: datetime) -> tuple[datetime, str]:
        """Return when and why a session is over that gets no more messages: the earliest, ties in this list's order."""
        ends = [(last_message_at + self.idle, "timeout")]
        if self.day_start is not None and self.zone is not None:
            ends.append((next_day_start(last_message_at, self.day_start, self.zone), "end_of_day"))
        if self.max_age is not None:
            ends.append((started_at + self.max_age, "max_age"))
        return min(ends, key=lambda end: end[0])


def next_day_start(after: datetime, day_start: time, zone: str) -> datetime:
    days = (after.date() + timedelta(days=nr) for nr in range(-3, 5))
    return min(instant for day in days if (instant := day_start_on(day, day_start, zone)) > after)


@cache
def day_start_on(day: date, day_start: time, zone: str) -> datetime:
    """Watch a wall clock until it shows `day_start` for the last time; if it jumps over it, until it has jumped."""
    wanted = datetime.combine(day, day_start)
    midnight = datetime.combine(day, time(), UTC)

    def shown(instant: datetime) -> datetime:
        return instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)

    steps = (midnight + nr * STEP for nr in range(-16 * 4, 64 * 4))
    instant = max(step for step in steps if shown(step) <= wanted)
    while shown(instant + MINUTE) <= wanted:
        instant += MINUTE
    return instant if shown(instant) == wanted else instant + MINUTE


@dataclass
class Session:
    started_at: datetime
    last_message_at: datetime
    escalated_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    seqs: list[int] = field(default_factory=list)

    @property
    def status(self) -> str:
        if self.ended_at is not None:
            return "ended"
        return "active" if self.escalated_at is None else "escalated"

    @property
    def is_with_a_human(self) -> bool:
        return self.status == "escalated"

    def end(self, at: datetime, reason: str) -> None:
        self.ended_at, self.reason = at, reason


class Waiting(NamedTuple):
    """A message that waits, with the ends by command that are noted on it. One that is redriven is none: see Model."""

    seq: int
    at: datetime
    ends: tuple[datetime, ...] = ()


class Model:
    """One user's sessions. `does` is what the handler does with a message: None, or one of EXPLICIT, or `escalate`.

    A redriven message runs in the session in which it died. It ends no session: that one's end would depend on who came
    first.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.sessions: list[Session] = []
        self.answers: dict[int, str] = {}
        """What became of the reply to a message, by number: `pending`, or `withheld` when a human had taken over."""
        self._taken_over: dict[int, datetime] = {}

    @property
    def open(self) -> Session | None:
        return next((session for session in self.sessions if session.ended_at is None), None)

    def begin(self, seq: int, at: datetime) -> bool:
        """Begin the turn of a message that was accepted at `at`; return whether the handler runs."""
        session = self._session_at(at)
        session.seqs.append(seq)
        session.last_message_at = at
        if seq in self._taken_over:
            session.escalated_at = self._taken_over[seq]
        return not session.is_with_a_human

    def begin_again(self, seq: int) -> bool:
        """Begin the turn of a redriven message where it died; return whether the handler runs."""
        return not self._session_of(seq).is_with_a_human

    def commit(self, seq: int, does: str | None, redriven_at: datetime | None = None) -> None:
        """Let the effects of a handler stand, unless a human has taken over, or the session is over."""
        session = self._session_of(seq)
        self.answers[seq] = "withheld" if session.is_with_a_human else "pending"
        if session.ended_at is not None or session.is_with_a_human:
            return
        if does in EXPLICIT and redriven_at is None:
            session.end(session.last_message_at, does)
        elif does == "escalate":
            session.escalated_at = max(session.last_message_at, redriven_at or session.last_message_at)

    def end(self, at: datetime, reason: str = "operator") -> None:
        self.look(at)
        if self.open:
            self.open.end(at, reason)

    def escalate(self, at: datetime, waiting: list[Waiting], running: int | None = None) -> None:
        """Hand over the session that is open at `at` when all is worked off; what waits in it is the human's too."""
        later = deepcopy(self)
        for message in waiting:
            if message.seq != running:
                later.begin(message.seq, message.at)
            for end in message.ends:
                later.end(end)
        later.look(at)
        taken_over = later.open
        if taken_over is None:
            if not waiting:
                self.look(at)
            return
        if waiting and taken_over.seqs[0] == waiting[0].seq and waiting[0].seq != running:
            self._session_at(waiting[0].at)
        if self.open and self.open.started_at == taken_over.started_at:
            self.open.escalated_at = at
        else:
            self._taken_over |= {message.seq: at for message in waiting if message.seq in taken_over.seqs}

    def hand_back(self) -> None:
        self._taken_over.clear()
        if self.open:
            self.open.escalated_at = None

    def look(self, at: datetime) -> None:
        """End what is over by `at`: a session, or that a human has it."""
        session = self.open
        if session is None:
            return
        ends_at, reason = self.policy.end(session.started_at, session.last_message_at)
        if ends_at <= at:
            session.end(ends_at, reason)
        elif session.escalated_at is not None:
            silent_since = max(session.escalated_at, session.last_message_at)
            if silent_since + self.policy.escalation <= at:
                session.escalated_at = None

    def _session_at(self, at: datetime) -> Session:
        self.look(at)
        session = self.open
        if session is None:
            session = Session(at, at)
            self.sessions.append(session)
        return session

    def _session_of(self, seq: int) -> Session:
        return next(session for session in self.sessions if seq in session.seqs)
