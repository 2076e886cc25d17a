"""The operator's pages with many users: no page reads a whole table.

PAGES_USERS=100000 makes as many users as docs/OPERATIONS.md speaks of, PAGES_MESSAGES=20000 as many messages of the one
who is forgotten; how long each page takes, and to forget, is printed.
"""

import os
import re
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient

from onelane.bootstrap import Services
from onelane.operations.forgetting import Forgotten, forget
from onelane.postgres.db import Database, Params

USERS = int(os.environ.get("PAGES_USERS", "3000"))
MESSAGES = int(os.environ.get("PAGES_MESSAGES", "200"))
LARGE = ("users", "user_aliases", "conversation_sessions", "messages", "tool_calls", "takeovers")
PLANT = (
    """
    INSERT INTO users (channel, sender, last_seq, next_seq, last_accepted_at)
    SELECT 'demo', 'user ' || nr, 10, 11, now() FROM generate_series(1, %(users)s) nr
    """,
    "INSERT INTO user_aliases (channel, alias, user_id) SELECT channel, sender, id FROM users",
    """
    INSERT INTO conversation_sessions
           (user_id, status, started_at, last_message_at, ended_at, ended_reason, sweep_at)
    SELECT id, 'ended', now() - d * interval '1 day', now() - d * interval '1 day', now() - d * interval '1 day',
           'timeout', now() FROM users CROSS JOIN generate_series(1, 2) d
    """,
    """
    INSERT INTO messages (user_id, session_id, direction, seq, turn_seq, ordinal, state, channel, text, accepted_at)
    SELECT s.user_id, s.id, CASE o WHEN 0 THEN 'in' ELSE 'out' END, CASE o WHEN 0 THEN nr END, nr, o,
           CASE o WHEN 0 THEN 'processed' ELSE 'delivered' END, 'demo', 'hello, this is what somebody has written',
           s.started_at
      FROM (SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY started_at) AS place
              FROM conversation_sessions) s
     CROSS JOIN LATERAL generate_series(s.place * 5 - 4, s.place * 5) nr CROSS JOIN generate_series(0, 1) o
    """,
    """
    INSERT INTO tool_calls (user_id, session_id, message_id, call_id, name, output)
    SELECT user_id, session_id, id, 'c', 'list', '1' FROM messages WHERE seq = 1
    """,
    "INSERT INTO takeovers (user_id, message_id, fence) SELECT user_id, id, 1 FROM messages WHERE seq = 1",
    "ANALYZE",
)


OF_ONE = (
    """
    INSERT INTO messages (user_id, session_id, direction, seq, turn_seq, ordinal, state, channel, external_id,
                          provider_id, text, accepted_at)
    SELECT s.user_id, s.id, CASE o WHEN 0 THEN 'in' ELSE 'out' END, CASE o WHEN 0 THEN nr END, nr, o,
           CASE o WHEN 0 THEN 'processed' ELSE 'delivered' END, 'demo', CASE o WHEN 0 THEN 'of one ' || nr END,
           CASE o WHEN 1 THEN 'to one ' || nr END, 'hello, this is what somebody has written', s.started_at
      FROM (SELECT * FROM conversation_sessions WHERE user_id = %(user)s LIMIT 1) s
     CROSS JOIN generate_series(11, %(messages)s / 2 + 10) nr CROSS JOIN generate_series(0, 1) o
    """,
    """
    INSERT INTO tool_calls (user_id, session_id, message_id, call_id, name, output)
    SELECT user_id, session_id, id, 'c', 'list', '1' FROM messages WHERE user_id = %(user)s AND seq > 10
    """,
    """
    INSERT INTO accepted_deliveries (channel, external_id, user_id, message_id, seq, accepted_at)
    SELECT channel, external_id, user_id, id, seq, accepted_at FROM messages
     WHERE user_id = %(user)s AND external_id IS NOT NULL
    """,
    """
    INSERT INTO provider_messages (channel, provider_id, user_id, reply_id)
    SELECT channel, provider_id, user_id, id FROM messages WHERE user_id = %(user)s AND provider_id IS NOT NULL
    """,
)
"""What PAGES_MESSAGES asks for."""


class Asked:
    """The statements that pages ask for, with their parameters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements: dict[str, Params] = {}
        rows, row = Database.rows, Database.row

        def noted_rows(database: Database, query: str, params: Params = None, **how: Any) -> Any:
            self.statements[query] = params
            return rows(database, query, params, **how)

        def noted_row(database: Database, query: str, params: Params = None, **how: Any) -> Any:
            self.statements[query] = params
            return row(database, query, params, **how)

        monkeypatch.setattr(Database, "rows", noted_rows)
        monkeypatch.setattr(Database, "row", noted_row)

    def whole_tables(self, database: Database) -> Iterator[str]:
        """Name the large tables of which a statement reads all rows."""
        for query, params in [*self.statements.items()]:
            if not query.lstrip().startswith(("SELECT", "WITH")) or "record_act" in query:
                continue
            with database.transaction() as connection:
                plan = [one[0] for one in connection.execute(f"EXPLAIN {query}", params).fetchall()]
            for line in plan:
                if (found := re.search(r"Seq Scan on (\w+)", line)) and found[1] in LARGE:
                    yield f"{found[1]}: {query}\n" + "\n".join(plan)


@pytest.mark.slow
def test_no_page_reads_a_whole_table_and_one_of_many_is_forgotten(
    services: Services, operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(services.database, PLANT, users=USERS)
    row = services.database.row("SELECT user_id FROM user_aliases WHERE alias = %s", (f"user {USERS // 2}",))
    assert row
    asked = Asked(monkeypatch)
    took = {path: _ms(operator, path) for path in _paths(row.user_id)}
    took["search"] = _ms(operator, "/ops/users", {"who": f"user {USERS // 2}"})
    took["texts"] = _ms(operator, f"/ops/users/{row.user_id}/texts", {})
    print({path: round(ms) for path, ms in took.items()})  # noqa: T201 - what PAGES_USERS asks for
    assert list(asked.whole_tables(services.database)) == []

    _plant(services.database, OF_ONE, user=row.user_id, messages=MESSAGES)
    began = time.perf_counter()
    forgotten = forget(services, row.user_id, "ann")
    print({"forget": round((time.perf_counter() - began) * 1000)})  # noqa: T201
    assert forgotten == Forgotten(messages=MESSAGES + 20, quarantined=0)


def _plant(database: Database, statements: tuple[str, ...], **values: Any) -> None:
    for statement in statements:
        with database.transaction(600) as connection:
            connection.execute("SET LOCAL statement_timeout = 0")
            connection.execute(statement, values if "%(" in statement else None)


def _paths(user_id: UUID) -> tuple[str, ...]:
    states = ("given_up", "failed", "unknown")
    general = ("overview", "users", "replies", "dead", "quarantine", "anomalies", "doctor")
    return (
        *(f"/ops/{page}" for page in general),
        *(f"/ops/replies?state={state}" for state in states),
        f"/ops/users/{user_id}",
    )


def _ms(operator: FlaskClient, path: str, form: dict[str, str] | None = None) -> float:
    """Return the best of three: the first reads the disk, and prepares statements."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        answer = operator.get(path) if form is None else operator.post(path, data=form)
        times.append((time.perf_counter() - began) * 1000)
        assert answer.status_code in {200, 303}, answer.text
    return min(times)
