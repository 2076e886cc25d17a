"""What was said and called in one session, as its history has it."""

from typing import Any
from uuid import UUID

from onelane.history import Line, Role, ToolCall
from onelane.postgres.db import Database

LINES = """
SELECT id, turn_seq AS seq, kind, direction, event, button, state, accepted_at AS at, author,
       CASE WHEN deleted_at IS NULL THEN coalesce(edited_text, text) ELSE '' END AS text,
       CASE WHEN deleted_at IS NULL THEN attachments ELSE '[]' END AS media,
       CASE direction WHEN 'out' THEN coalesce(parts -> 'buttons', '[]') ELSE '[]' END AS buttons
  FROM messages
 WHERE session_id = %s
 ORDER BY turn_seq DESC, ordinal DESC
 LIMIT %s
"""
CALLS = """
SELECT message_id, call_id, name, arguments, output FROM tool_calls
 WHERE session_id = %s AND message_id = ANY(%s::uuid[]) ORDER BY id
"""


def lines(database: Database, session_id: UUID, limit: int) -> list[Line]:
    """Return the last `limit` lines, oldest first: a turn's messages, then its calls, then its replies.

    What a user has edited since is shown so, and nothing of what was deleted.
    """
    rows = database.rows(LINES, (session_id, limit))
    asked = [row.id for row in rows if row.direction == "in"]
    calls: dict[UUID, list[Line]] = {}
    for row in database.rows(CALLS, (session_id, asked)) if asked else []:
        calls.setdefault(row.message_id, []).append(row)
    found: list[Line] = []
    for row in reversed(rows):
        found.append(_line(row))
        found += [_called(row, call) for call in calls.get(row.id, ())]
    return found[-limit:] if limit else []


def _line(row: Any) -> Line:
    role = Role.BOT if row.direction == "out" else {"echo": Role.AGENT, "event": Role.EVENT}.get(row.kind, Role.USER)
    return Line(
        role=role,
        seq=row.seq,
        at=row.at,
        text=row.text,
        button=row.button,
        media=row.media,
        buttons=row.buttons,
        author=row.author,
        event=row.event,
        state=row.state,
    )


def _called(row: Any, call: Any) -> Line:
    kept = ToolCall(id=call.call_id, name=call.name, arguments=call.arguments, output=call.output)
    return Line(role=Role.TOOL, seq=row.seq, at=row.at, call=kept)
