"""What the database says after a run: plain rows, read with SQL of our own."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import psycopg

Row = TypeVar("Row")


class UserRow(NamedTuple):
    id: str
    channel: str
    sender: str
    last_seq: int
    waiting: int
    state: dict[str, Any]


class SessionRow(NamedTuple):
    id: str
    user_id: str
    status: str
    started_at: datetime
    last_message_at: datetime
    ended_at: datetime | None
    ended_reason: str | None
    state: dict[str, Any]


class MessageRow(NamedTuple):
    id: str
    user_id: str
    session_id: str | None
    seq: int
    state: str
    external_id: str
    text: str
    accepted_at: datetime
    processed_at: datetime | None
    attempts: int
    redriven_at: datetime | None
    end_at: datetime | None

    @property
    def left_at(self) -> datetime:
        """When it left its order; of a message that has left it."""
        assert self.processed_at is not None
        return self.processed_at


class EventRow(NamedTuple):
    id: str
    user_id: str
    seq: int
    accepted_at: datetime
    kind: str = "event"
    external_id: str = ""
    text: str = ""


class ReplyRow(NamedTuple):
    id: str
    user_id: str
    session_id: str | None
    turn_seq: int
    ordinal: int
    state: str
    text: str
    failure: str | None
    given_up_at: datetime | None
    committed_at: datetime | None = None
    sent_at: datetime | None = None
    failed_at: datetime | None = None

    @property
    def left_at(self) -> datetime | None:
        """When it let the next one be sent; of one that did."""
        return self.sent_at or self.failed_at or self.given_up_at


class OutputRow(NamedTuple):
    session_id: str
    message_id: str
    name: str
    data: Any


class Rows(NamedTuple):
    """All of it, and when it was read, on the database's clock."""

    users: list[UserRow]
    sessions: list[SessionRow]
    messages: list[MessageRow]
    replies: list[ReplyRow]
    outputs: list[OutputRow]
    read_at: datetime
    events: Sequence[EventRow] = ()


USERS = "SELECT id::text, channel, sender, last_seq, waiting, state FROM users"
SESSIONS = """
SELECT id::text, user_id::text, status, started_at, last_message_at, ended_at, ended_reason, state
  FROM conversation_sessions ORDER BY started_at, created_at
"""
MESSAGES = """
SELECT id::text, user_id::text, session_id::text, seq, state, external_id, text, accepted_at, processed_at, attempts,
       redriven_at, end_at
  FROM messages WHERE direction = 'in' AND kind = 'message'
UNION ALL
SELECT id::text, user_id::text, session_id::text, seq, 'received', external_id, text, accepted_at, NULL, attempts,
       redriven_at, end_at
  FROM inbox
 ORDER BY seq
"""
EVENTS = """
SELECT id::text, user_id::text, seq, accepted_at, kind, external_id, text
  FROM messages WHERE direction = 'in' AND kind <> 'message' ORDER BY seq
"""
REPLIES = """
SELECT id::text, user_id::text, session_id::text, turn_seq, ordinal, state, text, failure, given_up_at,
       processed_at, sent_at, failed_at
  FROM messages WHERE direction = 'out' ORDER BY turn_seq, ordinal
"""
OUTPUTS = "SELECT session_id::text, message_id::text, name, output FROM tool_calls ORDER BY id"


def read(database_url: str, same: Callable[[Any], Any] = lambda value: value) -> Rows:
    """Read everything, as of one moment; `same` returns the first of equal texts, so that each is kept once."""

    def rows(make: Callable[[Iterable[Any]], Row], query: str) -> list[Row]:
        return [make(map(same, row)) for row in connection.execute(query)]

    with psycopg.connect(database_url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SET LOCAL TimeZone TO 'UTC'")
        [[read_at]] = connection.execute("SELECT clock_timestamp()").fetchall()
        return Rows(
            rows(UserRow._make, USERS),
            rows(SessionRow._make, SESSIONS),
            rows(MessageRow._make, MESSAGES),
            rows(ReplyRow._make, REPLIES),
            rows(OutputRow._make, OUTPUTS),
            read_at,
            rows(EventRow._make, EVENTS),
        )
