"""What a replay found: the session and the answer of each message, and whether they are as they should be."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from onelane.dev.incident.timeline import CHOSEN, Moment

SITE = "Champigny"


@dataclass(frozen=True)
class Line:
    """What became of one message."""

    moment: Moment
    accepted_at: datetime
    seq: int | None
    """Its number, if the service gives numbers."""
    session: UUID | None
    """None when the request failed."""
    answer: str | None


@dataclass(frozen=True)
class Opened:
    """A session."""

    id: UUID
    ended_by: str | None


@dataclass(frozen=True)
class Account:
    """The result of one side."""

    lines: Sequence[Line]
    """By time."""
    sessions: Sequence[Opened]
    """In the order in which they were opened."""
    sessions_with_list: Collection[UUID]
    """The sessions that hold the list of sites."""

    @property
    def tap(self) -> Line:
        """The line of the choice, whose answer needs the list."""
        return next(line for line in self.lines if line.moment == CHOSEN)

    @property
    def is_found(self) -> bool:
        """Whether the choice was answered with the site."""
        return SITE in (self.tap.answer or "")

    @property
    def is_list_lost(self) -> bool:
        """Whether the list is in another session than the choice."""
        return bool(self.sessions_with_list) and self.tap.session not in self.sessions_with_list

    @property
    def messages_per_session(self) -> dict[str, int]:
        """How many of the user's messages each session holds."""
        counts = Counter(line.session for line in self.lines)
        return {self.name(opened.id): counts[opened.id] for opened in self.sessions}

    def name(self, session: UUID | None) -> str:
        """Name a session for a reader: S1 is the first that was opened."""
        ids = [opened.id for opened in self.sessions]
        return f"S{ids.index(session) + 1}" if session in ids else "-"


@dataclass(frozen=True)
class Incident:
    """Both sides."""

    naive: Account
    real: Account

    @property
    def differences(self) -> list[str]:
        """List what differs from docs/INCIDENT.md; empty when the replay shows what it should."""
        return [*self._naive_differences(), *self._real_differences()]

    def _naive_differences(self) -> Iterator[str]:
        if len(self.naive.sessions) < 2:  # noqa: PLR2004 - several
            yield "the naive resolver did not open several sessions"
        if not self.naive.is_list_lost or self.naive.is_found:
            yield "the naive resolver did not lose the list of sites"

    def _real_differences(self) -> Iterator[str]:
        lines = self.real.lines
        if len(self.real.sessions) != 1:
            yield f"Onelane opened {len(self.real.sessions)} sessions, not one"
        if self.real.is_list_lost or not self.real.is_found:
            yield f"Onelane did not answer the choice with {SITE}"
        if {line.seq for line in lines} != set(range(1, len(lines) + 1)):
            yield "Onelane's numbers of the messages have a gap"
        if not {line.accepted_at for line in lines} <= {line.moment.at for line in lines}:
            yield "Onelane did not use the times of the evening"
