"""The replies to a user, for development only: `onelane send` reads them; the internet must not."""

from collections.abc import Sequence

from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue

from onelane.bootstrap import Services
from onelane.errors import StoreUnavailable
from onelane.model import JsonObject
from onelane.postgres.connection import Row
from onelane.users import user_of

ROWS_MAX = 500
AFTER_DIGITS_MAX = 18

TURNS = """
SELECT inbound.id AS message_id, m.turn_seq AS seq, m.ordinal, m.external_id, m.text, m.session_id,
       coalesce(o.state, m.state) AS state, m.attachments, m.parts, m.failure, m.last_error
  FROM messages m
  LEFT JOIN outbox o ON o.id = m.id
  LEFT JOIN messages inbound
    ON inbound.user_id = m.user_id AND inbound.turn_seq = m.turn_seq AND inbound.ordinal = 0
 WHERE m.user_id = %s AND m.turn_seq >= %s AND m.failure IS DISTINCT FROM 'escalated'
   AND NOT EXISTS (SELECT FROM inbox i WHERE i.user_id = m.user_id AND i.seq <= m.turn_seq)
 ORDER BY m.turn_seq, m.ordinal
 LIMIT %s
"""
"""Ends before the first message that waits: an event behind it is terminal before it."""

WAITING = """
SELECT external_id, attempts, laters, last_error FROM inbox WHERE user_id = %s AND last_error IS NOT NULL
 ORDER BY seq LIMIT %s
"""


def blueprint(services: Services) -> Blueprint:
    """Serve GET /webhooks/<channel>/replies?user=NAME[&after=SEQ]."""
    pages = Blueprint("replies", __name__)

    @pages.get("/webhooks/<channel>/replies")
    def replies(channel: str) -> ResponseReturnValue:
        """List terminal messages and their replies in order, committed or further, and what keeps failing.

        The next page follows `after` this page's `done_seq`.
        """
        if channel not in services.settings.channels:
            abort(404)
        user, after = request.args.get("user", ""), request.args.get("after", "")
        if not user:
            return jsonify(error="user: is missing", field="user"), 400
        if after and not (after.isascii() and after.isdigit() and len(after) <= AFTER_DIGITS_MAX):
            return jsonify(error="after: must be a seq", field="after"), 400
        user_id = user_of(services.database, channel, user)
        first = int(after) + 1 if after else 0  # what is said before any turn has seq 0
        turns = _whole_turns(services.database.rows(TURNS, (user_id, first, ROWS_MAX)))
        return jsonify(
            user_id=user_id and str(user_id),
            messages=[_message(row) for row in turns if not row.ordinal],
            replies=[_reply(row) for row in turns if row.ordinal],
            failing=[row._asdict() for row in services.database.rows(WAITING, (user_id, ROWS_MAX))],
            done_seq=turns[-1].seq if turns else max(0, first - 1),
        )

    pages.register_error_handler(StoreUnavailable, _store_unavailable)
    return pages


def _whole_turns(rows: Sequence[Row]) -> Sequence[Row]:
    """Leave out the last turn of a full page: the page may end in the middle of it."""
    if len(rows) < ROWS_MAX:
        return rows
    return [row for row in rows if row.seq < rows[-1].seq] or rows


def _store_unavailable(_error: StoreUnavailable) -> ResponseReturnValue:
    return jsonify(error="try again later"), 503


def _message(row: Row) -> JsonObject:
    return {**_line(row), "external_id": row.external_id, "last_error": row.last_error}


def _reply(row: Row) -> JsonObject:
    said = {"text": row.text, "media": row.attachments, "buttons": (row.parts or {}).get("buttons", [])}
    return {**_line(row), "ordinal": row.ordinal, **said, "failure": row.failure}


def _line(row: Row) -> JsonObject:
    """Return what messages and replies have in common; `message_id` of a reply is its message's, if it has one."""
    return {
        "message_id": row.message_id and str(row.message_id),
        "seq": row.seq,
        "state": row.state,
        "session_id": row.session_id and str(row.session_id),
    }
