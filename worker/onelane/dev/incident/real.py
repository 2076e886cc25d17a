"""The evening at the real service: signed webhooks over HTTP, PostgreSQL, Redis, a worker."""

import json
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from onelane.dev.incident import private_stack
from onelane.dev.incident.account import Account, Line, Opened
from onelane.dev.incident.private_stack import PrivateStack
from onelane.dev.incident.timeline import CHANNEL, EVENING, TIME_HEADER, Moment, channel
from onelane.handlers.sites import OUTPUT
from onelane.postgres.db import Database

DONE_S = 60.0

WAITING = "SELECT count(*) AS messages FROM inbox"
MESSAGES = """
SELECT m.external_id, m.accepted_at, m.seq, m.session_id, string_agg(reply.text, E'\n' ORDER BY reply.ordinal) AS answer
  FROM messages m
  LEFT JOIN messages reply
    ON reply.user_id = m.user_id AND reply.turn_seq = m.turn_seq AND reply.direction = 'out'
 WHERE m.direction = 'in'
 GROUP BY m.id
"""
SESSIONS = "SELECT id, ended_reason FROM conversation_sessions ORDER BY started_at, created_at"
LISTS = "SELECT DISTINCT session_id FROM tool_calls WHERE name = %s"


def replay(report: Callable[[str], object]) -> Account:
    """Send the evening to a service of our own, and read from its database what came of it."""
    token = secrets.token_hex(16)
    environment = {
        "CHANNELS": json.dumps({CHANNEL: channel(token)}),
        "HANDLER": "onelane.handlers.sites:handle",
        "DEVELOPMENT": "true",
        "LOG_LEVEL": "WARNING",
    }
    with private_stack.running(report, environment) as private, closing(Database(private.database_url)) as database:
        report("posting the evening's webhooks")
        _post_evening(private, token)
        private.stack.wait_for(lambda: _is_done(database), "the end of all turns", DONE_S)
        return _account(database)


def _post_evening(private: PrivateStack, token: str) -> None:
    """Post step by step, what belongs together at once; nobody waits for the bot's answers."""

    def post(moment: Moment) -> None:
        signed = moment.signed(token)
        private.post(f"/webhooks/{CHANNEL}", signed.body, {**signed.headers, TIME_HEADER: moment.at.isoformat()})

    with ThreadPoolExecutor() as threads:
        for step in EVENING:
            list(threads.map(post, step))


def _is_done(database: Database) -> bool:
    row = database.row(WAITING)
    return row is not None and row.messages == 0


def _account(database: Database) -> Account:
    found = {row.external_id: row for row in database.rows(MESSAGES)}
    moments = [moment for step in EVENING for moment in step]
    rows = [(moment, found[moment.delivery.external_id]) for moment in moments]
    return Account(
        lines=[Line(moment, row.accepted_at, row.seq, row.session_id, row.answer) for moment, row in rows],
        sessions=[Opened(row.id, row.ended_reason) for row in database.rows(SESSIONS)],
        sessions_with_list=[row.session_id for row in database.rows(LISTS, (OUTPUT,))],
    )
