"""How not to find a session: the flaws of the incident, each of which can be taken out.

No code is shared with the real service. The rows are in memory, but behave as those of a table: each statement is
atomic, two statements are not, and a unique index refuses a second active row.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

EVENING_HOUR: Final = 20
MORNING_HOUR: Final = 6
USERS_ZONE: Final = ZoneInfo("Europe/Paris")


class StatementFailed(Exception):  # noqa: N818 - it names what happened
    """The database refused a statement, or could not be asked."""


@dataclass(frozen=True)
class Flaws:
    """What is wrong with a resolver."""

    hour_of_day_rule: bool = True
    """A new day is recognised by comparing hours."""
    read_then_act: bool = True
    """The active session is read, then acted on, with no lock over both."""
    fallback_ends_all: bool = True
    """Any error is answered by ending whatever is active and opening another session."""


@dataclass
class Row:
    """A session, as the table holds it."""

    id: UUID
    last_message_at: datetime
    ended_by: str | None = None


class Rows:
    """The table of one user's sessions."""

    def __init__(self, *, unique_index: bool = True) -> None:
        self.all: list[Row] = []
        self._unique_index = unique_index
        self._statement = threading.Lock()

    def active(self) -> Row | None:
        """Read the newest active session, as it is now."""
        with self._statement:
            return next((replace(row) for row in reversed(self.all) if row.ended_by is None), None)

    def open(self, at: datetime) -> UUID:
        """Insert a session; raise StatementFailed when the unique index forbids it."""
        with self._statement:
            if self._unique_index and any(row.ended_by is None for row in self.all):
                raise StatementFailed("duplicate key value violates unique constraint")
            self.all.append(Row(uuid4(), at))
            return self.all[-1].id

    def end(self, why: str, session: UUID | None = None) -> None:
        """End one session, or all that are active."""
        with self._statement:
            for row in self.all:
                if row.ended_by is None and session in {None, row.id}:
                    row.ended_by = why

    def touch(self, session: UUID, at: datetime) -> None:
        """Note the time of a session's newest message."""
        with self._statement:
            next(row for row in self.all if row.id == session).last_message_at = at


class Resolver:
    """Finds the session of a message, badly."""

    def __init__(self, flaws: Flaws, rows: Rows) -> None:
        self._flaws = flaws
        self._rows = rows
        self._lock = threading.Lock()

    def resolve(self, at: datetime, meet: Callable[[], object]) -> UUID:
        """Return the session for a message of that time; `meet` is called where another request may come in between."""
        try:
            return self._get_or_create(at, meet)
        except StatementFailed:
            if not self._flaws.fallback_ends_all:
                raise
            self._rows.end("the fallback")
            return self._rows.open(at)

    def _get_or_create(self, at: datetime, meet: Callable[[], object]) -> UUID:
        if self._flaws.read_then_act:
            found = self._rows.active()
            meet()
            return self._act(found, at)
        meet()
        with self._lock:
            return self._act(self._rows.active(), at)

    def _act(self, found: Row | None, at: datetime) -> UUID:
        if found is not None:
            if not (self._flaws.hour_of_day_rule and is_new_day_by_hours(found.last_message_at, at)):
                return found.id
            self._rows.end("the hour-of-day rule", found.id)
        return self._rows.open(at)


def is_new_day_by_hours(last_message_at: datetime, now: datetime) -> bool:
    """Return whether a new day has begun. Bug on purpose: true for any two messages between 20:00 and midnight."""
    last_hour, hour = (instant.astimezone(USERS_ZONE).hour for instant in (last_message_at, now))
    return last_hour >= EVENING_HOUR and hour >= MORNING_HOUR
