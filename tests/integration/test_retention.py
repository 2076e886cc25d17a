"""What is over for RETENTION_DAYS is forgotten: whole sessions, and nothing that is younger, open or in use."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from onelane.bootstrap import Services
from onelane.config import Channel, Settings
from onelane.deliveries import Accepted
from onelane.errors import StoreUnavailable
from onelane.postgres.connection import Row
from onelane.postgres.db import Database
from onelane.processes import retention
from onelane.processes.retention import Retention, days_kept
from tests.by_hand import ByHand
from tests.calls import lease
from tests.conftest import LogLines
from tests.rows import Rows

TODAY = datetime.now(UTC)
LEFT = """
SELECT (SELECT count(*) FROM messages WHERE direction = 'in') AS messages,
       (SELECT count(*) FROM messages WHERE direction = 'out') AS replies,
       (SELECT count(*) FROM tool_calls) AS calls,
       (SELECT min(turn_seq) FROM messages) AS oldest,
       (SELECT count(*) FROM messages r WHERE direction = 'out' AND NOT EXISTS (
            SELECT FROM messages m WHERE m.user_id = r.user_id AND m.turn_seq = r.turn_seq AND m.ordinal = 0)) AS alone
"""
OF_A_SESSION = ("conversation_sessions", "messages", "tool_calls", "payloads", "provider_messages", "takeovers")


@pytest.fixture
def conversation(services: Services) -> Callable[[int], UUID]:
    """Have a conversation so many days ago; return its session."""

    def conversation(days: int, user: ByHand | None = None) -> UUID:
        user = user or ByHand(services.database)
        user.say(at=TODAY - timedelta(days=days))
        turn = user.turn(replies=[{"text": "hello"}], tool_calls=[{"call_id": "1", "name": "t", "output": {}}])
        [reply] = services.database.rows("SELECT id FROM outbox WHERE user_id = %s", (user.user_id,))
        services.database.rows("SELECT note_sent(%s, %s, %s, 1, true)", (user.user_id, reply.id, str(reply.id)))
        services.database.rows(
            "INSERT INTO payloads SELECT id, user_id, '{}' FROM messages WHERE session_id = %s AND direction = 'in'",
            (turn.session_id,),
        )
        services.database.rows(
            "INSERT INTO takeovers SELECT user_id, id, 1 FROM messages WHERE session_id = %s AND direction = 'in'",
            (turn.session_id,),
        )
        services.sessions.sweep()
        session_id: UUID = turn.session_id
        return session_id

    return conversation


def sessions(services: Services) -> set[UUID]:
    return {row.id for row in services.database.rows("SELECT id FROM conversation_sessions")}


def test_ended_sessions_are_forgotten_whole_and_younger_ones_and_deliveries_stay(
    services: Services, rows: Rows, conversation: Callable[..., UUID], log_lines: LogLines
) -> None:
    user = ByHand(services.database)
    _old, young, today = (conversation(days, user) for days in (40, 20, 0))
    conversation(35)
    before = rows.counts()
    assert Retention(services.database, {"demo": 30}).forget() == 2
    assert sessions(services) == {young, today}
    assert {name: rows.counts()[name] for name in OF_A_SESSION} == {name: before[name] // 2 for name in OF_A_SESSION}
    assert rows.counts()["accepted_deliveries"] == before["accepted_deliveries"]
    assert [line["count"] for line in log_lines if line["event"] == "sessions_forgotten"] == [2]
    user.say()
    user.turn()


def test_what_is_in_use_is_left_for_the_next_lap_and_waited_for_by_nobody(
    services: Services, conversation: Callable[..., UUID]
) -> None:
    user = ByHand(services.database)
    conversation(40, user)
    services.database.rows("INSERT INTO out_lanes (user_id) VALUES (%s)", (user.user_id,))
    kept = Retention(services.database, {"demo": 30})
    with services.database.transaction() as transaction:
        transaction.execute("SELECT lock_user(%s)", (user.user_id,))
        assert kept.forget() == 0
    with services.database.transaction() as transaction:
        transaction.execute("SELECT FROM out_lanes WHERE user_id = %s FOR UPDATE", (user.user_id,))
        assert kept.forget() == 0
    kept.forget()
    assert sessions(services) == set()


def test_a_reply_that_is_not_sent_yet_keeps_its_session(services: Services) -> None:
    user = ByHand(services.database)
    user.say(at=TODAY - timedelta(days=40))
    user.turn(replies=[{"text": "hello"}])
    services.sessions.sweep()
    assert Retention(services.database, {"demo": 30}).forget() == 0


def test_what_was_said_while_no_session_was_open_and_is_not_sent_yet_keeps_the_session_before_it(
    services: Services, conversation: Callable[..., UUID], rows: Rows
) -> None:
    """Its line was forgotten, and not that it was to be sent: nothing was ever sent to the user again."""
    user = ByHand(services.database)
    conversation(40, user)
    for text, days in (("news", 39), ("more", 0)):
        told = {"channel": "demo", "user": str(user.user_id), "key": text, "replies": [{"text": text}]}
        said = user.do("say(%s)", Jsonb({**told, "now": (TODAY - timedelta(days=days)).isoformat()}))
        assert (said["outcome"], said["session_id"], len(said["outbox"])) == ("said", None, 1)
    kept = Retention(services.database, {"demo": 30})
    assert kept.forget() == 0
    for text in ("news", "more"):
        [begun] = user.do("begin_sends(%s)", Jsonb([lease(user.user_id)]))
        assert (begun["outcome"], begun["reply"]["text"]) == ("send", text)
        services.database.rows("SELECT note_sent(%s, %s, NULL, 1, true)", (user.user_id, begun["reply"]["id"]))
    assert kept.forget() == 1
    assert [row.text for row in rows.answers()] == ["more"]


def test_other_channels_are_left_alone_and_a_lap_goes_on_where_it_was(
    services: Services, conversation: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOOKS_MAX", 1)
    for days in (40, 39, 38):
        conversation(days)
    assert Retention(services.database, {"other": 1}).forget() == 0
    assert Retention(services.database, {"demo": 30}).forget() == 3


def test_a_session_with_more_lines_than_one_statement_takes_goes_turn_by_turn_and_its_row_last(
    services: Services, conversation: Callable[..., UUID], rows: Rows
) -> None:
    """One with more lines than can be deleted within a statement's time ended retention for good."""
    user = ByHand(services.database)
    for minutes in range(3):
        user.say(at=TODAY - timedelta(days=40, minutes=-minutes))
        user.turn(replies=[{"text": "a"}, {"text": "b"}], tool_calls=[{"call_id": "1", "name": "t", "output": {}}])
    services.database.rows("DELETE FROM outbox")
    services.sessions.sweep()
    conversation(39)
    seen, reached, forgotten = [], retention.FIRST, 0
    while reached:
        batch = rows.ask("SELECT * FROM forget_sessions('demo', now() - interval '30 d', %s, 9, 9, 4)", reached)
        reached, forgotten = batch.reached, forgotten + batch.forgotten
        left = rows.ask(LEFT)
        assert (left.alone, left.calls) == (0, left.messages)
        seen.append((left.messages, left.replies, forgotten))
    assert seen == [(3, 4, 0), (2, 1, 0), (0, 0, 2)]


@pytest.mark.parametrize("sqlstate", ["57014", "XX000"])
def test_a_session_that_cannot_be_forgotten_is_reported_and_the_others_are(
    services: Services, conversation: Callable[..., UUID], log_lines: LogLines, sqlstate: str
) -> None:
    conversation(41)
    odd, _other = conversation(40), conversation(39)
    kept = Retention(services.database, {"demo": 30})
    with refused(services.database, odd, sqlstate):
        assert kept.forget() + kept.forget() == 2
        assert sessions(services) == {odd}
    reported = [line for line in log_lines if line["event"] == "session_not_forgotten"]
    assert {(line["session_id"], line["sqlstate"]) for line in reported} == {(str(odd), sqlstate)}
    assert [line for line in log_lines if line["event"] == "duty_postponed"] == []
    assert kept.forget() == 1


@contextmanager
def refused(database: Database, session_id: UUID, sqlstate: str) -> Iterator[None]:
    """Let Postgres delete no line of a session."""
    database.rows(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END$$"
    )
    database.rows(
        "CREATE TRIGGER refuses BEFORE DELETE ON messages FOR EACH ROW"
        f" WHEN (OLD.session_id = '{session_id}') EXECUTE FUNCTION refuse()"
    )
    try:
        yield
    finally:
        database.rows("DROP FUNCTION refuse CASCADE")


class Failing(Database):
    """A database that fails for what is asked of two channels."""

    def rows(self, query: str, params: Any = None, *, within_s: float | None = None) -> list[Row]:
        """Ask, unless it is of one of them."""
        if params and params[0] == "away":
            raise StoreUnavailable("a lock")
        if params and params[0] == "broken":
            raise ValueError
        return super().rows(query, params, within_s=within_s)


def test_a_channel_that_fails_keeps_no_other_from_its_turn(
    services: Services, conversation: Callable[..., UUID], log_lines: LogLines
) -> None:
    conversation(40)
    with closing(Failing(services.settings.database_url)) as database:
        assert Retention(database, {"away": 30, "broken": 30, "demo": 30}).forget() == 1
    duties = [(line["event"], line["duty"]) for line in log_lines if "duty" in line]
    assert duties == [("duty_postponed", "forget_sessions"), ("duty_failed", "forget_sessions")]


def test_a_channel_with_more_than_a_round_takes_keeps_no_other_from_its_turn(
    services: Services, conversation: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "time", SimpleNamespace(monotonic=partial(next, count(step=2))))
    monkeypatch.setattr(retention, "LOOKS_MAX", 1)
    for days in range(31, 40):
        conversation(days)
    asked: list[str] = []
    row = services.database.row

    def asks(query: str, params: Sequence[Any]) -> Row | None:
        asked.append(params[0])
        return row(query, params)

    monkeypatch.setattr(services.database, "row", asks)
    kept = Retention(services.database, {"demo": 30, "large": 30, "third": 30})
    kept.forget()
    kept.forget()
    assert asked == ["demo", "large", "third", "demo"]


def test_sessions_are_kept_for_ever_unless_a_channel_or_all_say_otherwise(settings: Settings) -> None:
    two = {"a": Channel(provider="demo", retention_days=7), "b": Channel(provider="demo")}
    assert days_kept(settings) == {}
    assert days_kept(settings.model_copy(update={"channels": two})) == {"a": 7}
    assert days_kept(settings.model_copy(update={"channels": two, "retention_days": 30})) == {"a": 7, "b": 30}


def test_what_comes_again_after_its_session_is_forgotten_is_a_duplicate(
    services: Services, accept: Callable[..., Accepted]
) -> None:
    message = accept("alice", external_id="one")
    ByHand(services.database, user_id=message.user_id).turn()
    services.database.rows(
        "UPDATE conversation_sessions SET status = 'ended', ended_reason = 'operator', ended_at = started_at + interval"
        " '1 s', started_at = started_at - interval '9 d', last_message_at = started_at"
    )
    services.database.rows("UPDATE conversation_sessions SET ended_at = started_at, last_message_at = started_at")
    assert Retention(services.database, {"demo": 1}).forget() == 1
    assert accept("alice", external_id="one").duplicate
