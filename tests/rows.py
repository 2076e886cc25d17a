"""What Postgres holds of users, sessions and messages: the one place where tests read its tables, or write to them."""

from collections.abc import Sequence
from datetime import datetime, time
from typing import Any
from uuid import UUID

import psycopg

from onelane.postgres.connection import Row
from onelane.postgres.db import Database, Params

SESSIONS_AT_ONCE = """
SELECT a.user_id, a.id, b.id AS other
  FROM conversation_sessions a JOIN conversation_sessions b ON b.user_id = a.user_id AND b.id > a.id
 WHERE (a.status <> 'ended' AND b.status <> 'ended')
    OR tstzrange(a.started_at, a.ended_at) && tstzrange(b.started_at, b.ended_at)
"""
INBOUND = """
(SELECT id, user_id, session_id, seq, 'received' AS state, channel, external_id, text, button, attachments, sent_at,
        accepted_at, NULL::timestamptz AS processed_at, attempts, deaths, last_error, redriven_at,
        NULL::timestamptz AS dropped_at, end_at, end_reason
   FROM inbox
 UNION ALL
 SELECT id, user_id, session_id, seq, state, channel, external_id, text, button, attachments, sent_at,
        accepted_at, processed_at, attempts, deaths, last_error, redriven_at, dropped_at, end_at, NULL
   FROM messages WHERE direction = 'in') AS inbound
"""
"""Everything that users wrote, whether it waits or is done."""
OUT_OF_ORDER = """
SELECT user_id, seq, before
  FROM (SELECT user_id, seq, lag(seq) OVER (PARTITION BY user_id ORDER BY processed_at) AS before
          FROM messages WHERE direction = 'in' AND processed_at IS NOT NULL) committed
 WHERE before > seq
"""
SHAPE = """
SELECT array(SELECT seq::int FROM messages WHERE session_id = s.id AND direction = 'in' ORDER BY seq), ended_reason
  FROM conversation_sessions s WHERE user_id = %s ORDER BY started_at, created_at
"""
WAITING_USERS = """
WITH made AS (INSERT INTO users (id, channel, sender, last_seq, waiting)
              SELECT gen_random_uuid(), 'demo', 'user ' || nr, 1, 1 FROM generate_series(1, %s) nr RETURNING id)
INSERT INTO inbox (user_id, seq, id, channel, external_id, accepted_at)
SELECT id, 1, new_id(), 'demo', id::text, clock_timestamp() FROM made
"""
WAITING_REPLIES = """
WITH made AS (INSERT INTO users (id, channel, sender, last_seq)
              SELECT gen_random_uuid(), 'demo', 'partner ' || nr, 1 FROM generate_series(1, %s) nr RETURNING id)
INSERT INTO outbox (user_id, turn_seq, ordinal, id, channel) SELECT id, 1, 1, new_id(), 'demo' FROM made
"""
EMPTIED = (
    *("users", "user_aliases", "identity_conflicts", "conversation_sessions", "accepted_deliveries", "inbox"),
    *("messages", "payloads", "tool_calls", "channel_policies", "quarantined_payloads", "reply_statuses"),
    *("outbox", "out_lanes", "channel_holds", "provider_messages", "failures_to_tell", "reply_files", "steps"),
    *("audit", "operator_logins", "takeovers"),
)
TABLES = (*EMPTIED, "schema_files")
LARGE = 500_000
"""Bytes of all tables, lines that are gone included, from which on they are truncated."""
EMPTY = f"""
DO $$ BEGIN
    LOCK TABLE {", ".join(EMPTIED)} IN ACCESS EXCLUSIVE MODE;
    IF (SELECT sum(pg_relation_size(name::regclass)) FROM unnest(string_to_array('{" ".join(EMPTIED)}', ' ')) name)
       > {LARGE} THEN
        TRUNCATE {", ".join(EMPTIED)} CASCADE;
    ELSE
        SET LOCAL session_replication_role = replica; -- in any order
        {" ".join(f"DELETE FROM {name};" for name in EMPTIED)}
    END IF;
END $$
"""
"""A few lines are deleted in a sixth of the time that truncating takes. The locks wait for whoever writes still."""
SESSION = """
INSERT INTO conversation_sessions (user_id, sweep_at, status, started_at, last_message_at, ended_at, ended_reason)
VALUES (%(user_id)s, now(), CASE WHEN %(ended_at)s::timestamptz IS NULL THEN 'active' ELSE 'ended' END,
        coalesce(%(started_at)s, now()), coalesce(%(started_at)s, now()), %(ended_at)s, %(reason)s)
RETURNING id
"""
SETTLE = """
WITH gone AS (DELETE FROM inbox WHERE user_id = %s AND seq = %s RETURNING *)
INSERT INTO messages (id, user_id, session_id, direction, seq, turn_seq, state, channel, external_id, text, accepted_at)
SELECT id, user_id, %s, 'in', seq, seq, %s, channel, external_id, text, accepted_at FROM gone
"""
REPLY = """
INSERT INTO messages (user_id, session_id, direction, turn_seq, ordinal, state, channel, text, accepted_at)
VALUES (%s, %s, 'out', %s, %s, 'sent', 'demo', %s, clock_timestamp())
"""


class OneConnection:
    """Asks over a connection of the test's, which may be in a transaction, as a pool is asked."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def rows(self, query: str, params: Params = None) -> list[Row]:
        """Run one statement and return its rows."""
        cursor = self._connection.execute(query, params)
        return cursor.fetchall() if cursor.description else []


class Rows:
    """Reads what a test asks about, and writes what it plants."""

    def __init__(self, database: Database | OneConnection) -> None:
        self._database = database

    def ask(self, query: str, *params: Any) -> Row:
        """Run a statement that answers one row."""
        [row] = self._rows(query, *params)
        return row

    # one user

    def user(self, user_id: UUID) -> Row:
        """Return the user's row."""
        return self.ask("SELECT * FROM users WHERE id = %s", user_id)

    def sessions(self, user_id: UUID) -> list[Row]:
        """Return the user's sessions, oldest first."""
        return self._rows(
            "SELECT * FROM conversation_sessions WHERE user_id = %s ORDER BY started_at, created_at", user_id
        )

    def shape(self, user_id: UUID) -> list[tuple[list[int], str | None]]:
        """Return the user's sessions as the numbers of their messages, and why each ended."""
        return [tuple(row) for row in self._rows(SHAPE, user_id)]

    def inbound(self, user_id: UUID) -> list[Row]:
        """Return the user's messages, in their order."""
        return self._rows(f"SELECT * FROM {INBOUND} WHERE user_id = %s ORDER BY seq", user_id)

    def states(self, user_id: UUID) -> list[str]:
        """Return the states of the user's messages, in their order."""
        return [row.state for row in self.inbound(user_id)]

    def replies(self, user_id: UUID) -> list[Row]:
        """Return the replies to the user, in their order."""
        return self._rows(
            "SELECT * FROM messages WHERE user_id = %s AND direction = 'out' ORDER BY turn_seq, ordinal", user_id
        )

    def outbox(self, user_id: UUID) -> list[Row]:
        """Return the user's replies that wait, in their order."""
        return self._rows("SELECT * FROM outbox WHERE user_id = %s ORDER BY turn_seq, ordinal", user_id)

    def fail_reply(self, reply_id: UUID) -> None:
        """Let a reply that waits have failed."""
        self._rows("DELETE FROM outbox WHERE id = %s", reply_id)
        self._rows(
            "UPDATE messages SET state = 'failed', failed_at = now(), failure = 'blocked' WHERE id = %s", reply_id
        )

    def texts(self, user_id: UUID) -> list[str]:
        """Return the texts of the replies to the user, in their order."""
        return [row.text for row in self.replies(user_id)]

    def processed(self, user_id: UUID) -> list[int]:
        """Return the numbers of the user's processed messages, in the order of their commits."""
        rows = self._rows(
            "SELECT seq FROM messages WHERE user_id = %s AND state = 'processed' ORDER BY processed_at", user_id
        )
        return [row.seq for row in rows]

    def is_settled(self, user_id: UUID) -> bool:
        """Whether nothing of the user waits."""
        return bool(self.user(user_id).waiting == 0)

    # all users

    def user_of(self, channel: str, sender: str) -> UUID:
        """Return the id that a sender has got."""
        user_id: UUID = self.ask(
            "SELECT user_id FROM user_aliases WHERE channel = %s AND alias = %s", channel, sender
        ).user_id
        return user_id

    def message(self, message_id: UUID) -> Row:
        """Return a message's row."""
        return self.ask(f"SELECT * FROM {INBOUND} WHERE id = %s", message_id)

    def accepted(self) -> list[Row]:
        """Return all inbound messages, by user and number."""
        return self._rows(f"SELECT * FROM {INBOUND} ORDER BY user_id, seq")

    def answers(self) -> list[Row]:
        """Return all replies, by user and in their order."""
        return self._rows("SELECT * FROM messages WHERE direction = 'out' ORDER BY user_id, turn_seq, ordinal")

    def count(self, state: str) -> int:
        """Count the messages in a state."""
        return int(self.ask(f"SELECT count(*) AS n FROM {INBOUND} WHERE state = %s", state).n)

    def answered(self) -> int:
        """Count the replies."""
        return int(self.ask("SELECT count(*) AS n FROM messages WHERE direction = 'out'").n)

    def waiting(self) -> int:
        """Count what waits, as the users' rows have it."""
        return int(self.ask("SELECT coalesce(sum(waiting), 0) AS n FROM users").n)

    def attempts_max(self) -> int:
        """Return the most attempts that any message has had."""
        return int(self.ask(f"SELECT coalesce(max(attempts), 0) AS n FROM {INBOUND}").n)

    def waits_ms(self, users: Sequence[UUID] | None = None) -> list[float]:
        """Return how long processed messages waited from acceptance to commit, shortest first."""
        rows = self._rows(
            "SELECT extract(epoch FROM processed_at - accepted_at)::float8 * 1000 AS ms FROM messages"
            " WHERE direction = 'in' AND state = 'processed' AND (%s::uuid[] IS NULL OR user_id = ANY(%s)) ORDER BY 1",
            *(2 * [None if users is None else list(users)]),
        )
        return [row.ms for row in rows]

    def out_of_order(self) -> list[Row]:
        """Return the messages that were committed after a later one of their user."""
        return self._rows(OUT_OF_ORDER)

    def sessions_at_once(self) -> list[Row]:
        """Return pairs of sessions of one user that lasted at the same time, or are both open."""
        return self._rows(SESSIONS_AT_ONCE)

    def sessions_made(self) -> int:
        """Count the sessions of all users."""
        return int(self.ask("SELECT count(*) AS n FROM conversation_sessions").n)

    def senders(self) -> list[str]:
        """Return the names of all users, in their order."""
        return [row.sender for row in self._rows("SELECT sender FROM users ORDER BY sender")]

    def counts(self) -> dict[str, int]:
        """Count the rows of every table."""
        return {table: self.ask(f"SELECT count(*) AS n FROM {table}").n for table in TABLES}

    def anomalies(self) -> list[Row]:
        """Return what must not be."""
        return self._rows("SELECT * FROM session_anomalies ORDER BY at, kind")

    # the SQL functions that tests call by hand

    def session_of(self, user_id: UUID) -> UUID:
        """Resolve the session of the user's next turn; it is opened if the policy says so."""
        session_id: UUID = self.ask("SELECT get_or_create_session(%s) AS id", user_id).id
        return session_id

    def redrive(self, message_id: UUID, now: datetime | None = None) -> UUID | None:
        """Let a dead message wait again; return its user, or None when it is not dead."""
        user_id: UUID | None = self.ask("SELECT redrive_message(%s, NULL, %s) AS id", message_id, now).id
        return user_id

    def pause(self, user_id: UUID) -> None:
        """Pause the user in Postgres alone."""
        self._rows("SELECT pause_user(%s)", user_id)

    def resume(self, user_id: UUID) -> None:
        """Resume the user in Postgres alone."""
        self._rows("SELECT resume_user(%s)", user_id)

    # what is planted

    def empty(self) -> None:
        """Remove everything of all users, and the policies."""
        self._rows(EMPTY)

    def publish(
        self,
        channel: str,
        idle_s: int,
        day_start: time | None = None,
        zone: str | None = None,
        max_age_s: int | None = None,
        escalation_s: int | None = None,
    ) -> None:
        """Give a channel its policy; without one of their own, escalations end like silent sessions."""
        self._rows(
            "INSERT INTO channel_policies VALUES (%s, %s, %s, %s, %s, %s)",
            *(channel, idle_s, day_start, zone, max_age_s, escalation_s or idle_s),
        )

    def note_deaths(self, message_id: UUID, deaths: int) -> None:
        """Note that workers died with a waiting message in flight."""
        self._rows("UPDATE inbox SET deaths = %s WHERE id = %s", deaths, message_id)

    def make_user(self, channel: str, sender: str, created_at: datetime | None = None) -> UUID:
        """Make a user who has written nothing."""
        user_id: UUID = self.ask(
            "INSERT INTO users (channel, sender, created_at) VALUES (%s, %s, coalesce(%s, now())) RETURNING id",
            *(channel, sender, created_at),
        ).id
        self._rows("INSERT INTO user_aliases (channel, alias, user_id) VALUES (%s, %s, %s)", channel, sender, user_id)
        return user_id

    def make_session(
        self,
        user_id: UUID,
        started_at: datetime | None = None,
        ended_at: datetime | None = None,
        reason: str | None = None,
    ) -> UUID:
        """Make a session past all rules: from now on, or from `started_at`, perhaps ended."""
        values = {"user_id": user_id, "started_at": started_at, "ended_at": ended_at, "reason": reason}
        [row] = self._database.rows(SESSION, values)
        session_id: UUID = row.id
        return session_id

    def rewrite(self, message_id: UUID, text: str) -> None:
        """Change what a user wrote: the handler's next attempt reads another text."""
        for table in ("inbox", "messages"):
            self._rows(f"UPDATE {table} SET text = %s WHERE id = %s", text, message_id)

    def forget_messages(self) -> None:
        """Leave users of whom nothing is known but themselves."""
        self._rows("DELETE FROM inbox")
        self._rows("DELETE FROM messages")
        self._rows("UPDATE users SET waiting = 0")

    def set_fence(self, user_id: UUID, fence: int) -> None:
        """Let a lease with this fence have written."""
        self._rows("UPDATE users SET fence = %s WHERE id = %s", fence, user_id)

    def set_deaths(self, message_id: UUID, deaths: int) -> None:
        """Let so many workers have died with a message in flight."""
        self._rows("UPDATE inbox SET deaths = %s WHERE id = %s", deaths, message_id)

    def set_channel(self, user_id: UUID, channel: str) -> None:
        """Let the user be one of another channel, whose policy counts."""
        self._rows("UPDATE users SET channel = %s WHERE id = %s", channel, user_id)

    def set_waiting(self, user_id: UUID, waiting: int) -> None:
        """Let the user's row count wrongly."""
        self._rows("UPDATE users SET waiting = %s WHERE id = %s", waiting, user_id)

    def settle(self, user_id: UUID, seq: int, *texts: str, state: str = "processed") -> None:
        """Do to a message what a worker does: it gets a session, a final state and its replies."""
        session_id = self.session_of(user_id)
        self._rows(SETTLE, user_id, seq, session_id, state)
        self._rows("UPDATE users SET waiting = waiting - 1 WHERE id = %s", user_id)
        for ordinal, text in enumerate(texts, 1):
            self._rows(REPLY, user_id, session_id, seq, ordinal, text)

    def make_waiting_users(self, count: int) -> None:
        """Make so many users with one waiting message each, of which Redis knows nothing."""
        self._rows(WAITING_USERS, count)

    def make_waiting_replies(self, count: int) -> None:
        """Make so many users with one waiting reply each, of which Redis knows nothing."""
        self._rows(WAITING_REPLIES, count)

    def _rows(self, query: str, *params: Any) -> list[Row]:
        return self._database.rows(query, params)
