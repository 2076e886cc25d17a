"""One user's conversation as it went, texts included: sessions, and in each its lines and calls of tools, in order."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from onelane.db import Database
from onelane.model import Attachment, JsonObject, Value

LINES_MAX = 500

LINES = """
SELECT * FROM (
    SELECT m.id, m.session_id, m.turn_seq AS seq, m.ordinal, m.direction, m.kind, m.event, m.text, m.edited_text,
           m.deleted_at, m.button, m.attachments, m.parts, m.state, m.attempts, m.last_error, m.accepted_at AS at
      FROM messages m
     WHERE m.user_id = %(user_id)s OR m.user_id IN (SELECT id FROM users WHERE merged_into = %(user_id)s)
     ORDER BY m.turn_seq DESC, m.ordinal DESC LIMIT %(most)s) newest
 ORDER BY seq, ordinal
"""
WAITING = """
SELECT i.id, NULL AS session_id, i.seq, 0 AS ordinal, 'in' AS direction, i.kind, i.event, i.text, i.edited_text,
       i.deleted_at, i.button, i.attachments, i.parts, 'waiting' AS state, i.attempts, i.last_error,
       i.accepted_at AS at
  FROM inbox i WHERE i.user_id = %(user_id)s ORDER BY i.seq LIMIT %(most)s
"""
CALLS = """
SELECT c.id, c.message_id, c.name, c.output FROM tool_calls c WHERE c.message_id = ANY(%s::uuid[]) ORDER BY c.id
"""
SESSIONS = """
SELECT id, status, started_at, ended_at, ended_reason FROM conversation_sessions WHERE id = ANY(%s::uuid[])
 ORDER BY started_at, id
"""


class Call(Value):
    """A call of a tool that a turn has kept."""

    name: str
    output: Any


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
    last_error: str | None
    at: datetime
    calls: tuple[Call, ...] = ()
    """Of the turn that it made."""


class Span(Value):
    """One session."""

    id: UUID
    status: str
    started_at: datetime
    ended_at: datetime | None
    ended_reason: str | None


class Timeline(Value):
    """A user's newest lines, oldest first, and the sessions in which they lie."""

    user_id: UUID
    sessions: tuple[Span, ...]
    lines: tuple[Told, ...]


def timeline_of(database: Database, user_id: UUID, most: int = LINES_MAX) -> Timeline:
    """Read the newest `most` lines, and as many that wait; those of users that were merged into this one too."""
    asked = {"user_id": user_id, "most": min(most, LINES_MAX)}
    rows = [*database.rows(LINES, asked), *database.rows(WAITING, asked)]
    calls = _calls(database, [row.id for row in rows if row.ordinal == 0])
    sessions = database.rows(SESSIONS, ([row.session_id for row in rows if row.session_id],))
    return Timeline(
        user_id=user_id,
        sessions=tuple(Span(**row._asdict()) for row in sessions),
        lines=tuple(_told(row._asdict(), calls.get(row.id, ())) for row in rows),
    )


def _calls(database: Database, messages: Sequence[UUID]) -> dict[UUID, tuple[Call, ...]]:
    found: dict[UUID, tuple[Call, ...]] = {}
    for row in database.rows(CALLS, (messages,)) if messages else []:
        found[row.message_id] = (*found.get(row.message_id, ()), Call(name=row.name, output=row.output))
    return found


def _told(row: JsonObject, calls: tuple[Call, ...]) -> Told:
    edited, deleted_at = row.pop("edited_text"), row.pop("deleted_at")
    text = "" if deleted_at else row.pop("text") if edited is None else edited
    row.pop("text", None)
    return Told(**{**row, "text": text, "parts": row["parts"] or {}, "calls": calls})
