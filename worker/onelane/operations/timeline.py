"""One user's conversation as it went, texts included: sessions, and in each its lines and calls of tools, in order."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from onelane.model import Attachment, JsonObject, Value
from onelane.postgres.db import Database

LINES_MAX = 500
SESSIONS_MAX: Final = 100

PEOPLE: Final = """
WITH people AS MATERIALIZED (
    SELECT %(user_id)s::uuid AS id UNION ALL SELECT id FROM users WHERE merged_into = %(user_id)s)
"""
"""The user, and those who were merged into it: each has the rows of its time."""
LINES: Final = f"""
{PEOPLE}
SELECT * FROM (
    SELECT m.id, m.session_id, m.turn_seq AS seq, m.ordinal, m.direction, m.kind, m.event, m.text, m.edited_text,
           m.deleted_at, m.button, m.attachments, m.parts, coalesce(o.state, m.state) AS state, m.attempts, m.deaths,
           m.last_error, m.batch_last, m.lease, m.accepted_at AS at, m.processed_at,
           coalesce(o.failure, m.failure) AS failure,
           coalesce(o.failure_code, m.failure_code) AS failure_code, m.sent_at, m.delivered_at, m.read_at, m.failed_at,
           coalesce(o.requests, m.send_attempts) AS requests
      FROM people p
     CROSS JOIN LATERAL (SELECT * FROM messages WHERE user_id = p.id
                          ORDER BY turn_seq DESC, ordinal DESC LIMIT %(most)s) m
      LEFT JOIN outbox o ON o.id = m.id
     ORDER BY m.turn_seq DESC, m.ordinal DESC LIMIT %(most)s) newest
 ORDER BY seq, ordinal
"""  # noqa: S608 - a constant of ours
WAITING: Final = """
SELECT i.id, i.session_id, i.seq, 0 AS ordinal, 'in' AS direction, i.kind, i.event, i.text, i.edited_text,
       i.deleted_at, i.button, i.attachments, i.parts, 'waiting' AS state, i.attempts, i.deaths, i.last_error,
       nullif(i.batch_last, i.seq) AS batch_last, i.accepted_at AS at
  FROM inbox i WHERE i.user_id = %(user_id)s ORDER BY i.seq LIMIT %(most)s
"""
CALLS: Final = """
SELECT message_id, name, arguments, output FROM tool_calls
 WHERE session_id = ANY(%s::uuid[]) AND message_id = ANY(%s::uuid[]) ORDER BY id
"""
TAKEOVERS: Final = f"""
{PEOPLE}
SELECT t.message_id, t.fence, t.token, t.taken_from, t.at
  FROM people p JOIN takeovers t ON t.user_id = p.id AND t.message_id = ANY(%(messages)s::uuid[]) ORDER BY t.at, t.fence
"""  # noqa: S608 - a constant of ours
SESSIONS: Final = f"""
{PEOPLE}
SELECT s.id, s.status, s.started_at, s.last_message_at, s.escalated_at, s.ended_at, s.ended_reason
  FROM (SELECT n.* FROM people p
         CROSS JOIN LATERAL (SELECT * FROM conversation_sessions WHERE user_id = p.id
                              ORDER BY started_at DESC LIMIT %(sessions)s) n
         UNION
        SELECT * FROM conversation_sessions WHERE id = ANY(%(ids)s::uuid[])) s
 ORDER BY s.started_at, s.created_at, s.id
"""  # noqa: S608 - a constant of ours


class Call(Value):
    """A call of a tool that a turn has kept."""

    name: str
    arguments: JsonObject
    output: Any


class Takeover(Value):
    """That a lane was taken over while this message was first in it: its holder had died, or hung."""

    fence: int
    token: str | None
    """Of the new lease: its worker's name, a colon, its fence."""
    taken_from: str | None
    """Of the old one; None where Redis had forgotten it."""
    at: datetime


class Told(Value):
    """One line, waiting or done."""

    id: UUID
    session_id: UUID | None
    """None: it waits, or lies outside sessions."""
    seq: int
    ordinal: int
    """0: the user's own; 1, 2, … its replies."""
    direction: str
    kind: str
    event: str | None
    text: str
    """As its writer edited it last; empty when it was deleted."""
    button: str | None
    attachments: tuple[Attachment, ...]
    parts: JsonObject
    state: str
    attempts: int
    """That failed."""
    deaths: int
    """How often its lane's holder died while it was first."""
    last_error: str | None
    batch_last: int | None
    """The last number of the batch that it leads; None: it was answered alone, or leads none."""
    lease: str | None = None
    """Under which it was settled: its worker's name, a colon, its fence."""
    at: datetime
    processed_at: datetime | None = None
    failure: str | None = None
    failure_code: str | None = None
    sent_at: datetime | None = None
    """Of a reply: when its provider took it. Of a message: when its writer sent it."""
    delivered_at: datetime | None = None
    read_at: datetime | None = None
    failed_at: datetime | None = None
    requests: int = 0
    """How often a reply was sent."""
    takeovers: tuple[Takeover, ...] = ()
    calls: tuple[Call, ...] = ()
    """Of the turn that it made."""


class Span(Value):
    """One session."""

    id: UUID
    status: str
    started_at: datetime
    last_message_at: datetime
    escalated_at: datetime | None
    ended_at: datetime | None
    ended_reason: str | None


class Timeline(Value):
    """A user's newest lines, oldest first, and the sessions in which they lie and that are new."""

    user_id: UUID
    sessions: tuple[Span, ...]
    lines: tuple[Told, ...]


def timeline_of(database: Database, user_id: UUID, most: int = LINES_MAX) -> Timeline:
    """Read the newest `most` lines, and as many that wait; those of users that were merged into this one too."""
    asked = {"user_id": user_id, "most": min(most, LINES_MAX)}
    rows = [*database.rows(LINES, asked), *database.rows(WAITING, asked)]
    own = [row.id for row in rows if row.ordinal == 0]
    sessions = list({row.session_id for row in rows if row.session_id})
    calls = _of_messages(Call, database.rows(CALLS, (sessions, own))) if sessions else {}
    taken = _of_messages(Takeover, database.rows(TAKEOVERS, {"user_id": user_id, "messages": own})) if own else {}
    spans = database.rows(SESSIONS, {"user_id": user_id, "ids": sessions, "sessions": SESSIONS_MAX})
    return Timeline(
        user_id=user_id,
        sessions=tuple(Span(**row._asdict()) for row in spans),
        lines=tuple(_told(row._asdict(), calls.get(row.id, ()), taken.get(row.id, ())) for row in rows),
    )


def _of_messages(kind: type[Value], rows: Iterable[Any]) -> dict[UUID, tuple[Any, ...]]:
    """Put what belongs to messages together, by message, in the order of `rows`."""
    found: dict[UUID, tuple[Any, ...]] = {}
    for row in rows:
        fields = row._asdict()
        message = fields.pop("message_id")
        found[message] = (*found.get(message, ()), kind(**fields))
    return found


def _told(row: JsonObject, calls: Sequence[Call], taken: Sequence[Takeover]) -> Told:
    edited, deleted_at, text = row.pop("edited_text"), row.pop("deleted_at"), row.pop("text")
    text = "" if deleted_at else text if edited is None else edited
    return Told(**{**row, "text": text, "parts": row["parts"] or {}, "calls": calls, "takeovers": taken})
