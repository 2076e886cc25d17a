"""The view session_anomalies: silent about what must be, one row for each thing that must not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import namedtuple_row

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.postgres.migrations import shipped_code
from tests.by_hand import ByHand, Turn
from tests.rows import OneConnection

EVENING = datetime(2025, 11, 3, 20, 39, 6, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Story(ByHand):
    """A user, in a transaction that is rolled back: even the schema may be broken in it."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(OneConnection(connection))
        self.connection = connection

    def play(self, at: datetime, **effects: Any) -> Turn:
        """Accept a message and commit its turn."""
        self.say(at)
        return self.turn(**effects)

    def open(self, started_at: datetime, ended_at: datetime | None = None, reason: str | None = None) -> UUID:
        return self.rows.make_session(self._user, started_at, ended_at, reason)

    @cached_property
    def _user(self) -> UUID:
        return self.rows.make_user("demo", uuid4().hex)

    def change(self, query: str, *params: Any) -> None:
        """Break the schema, or what it holds."""
        self.connection.execute(query, params)

    def anomalies(self) -> list[tuple[str, UUID | None, datetime]]:
        return [(row.kind, row.session_id, row.at) for row in self.rows.anomalies()]

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.anomalies()]


@pytest.fixture
def story(services: Services, settings: Settings) -> Iterator[Story]:
    with psycopg.connect(settings.database_url, row_factory=namedtuple_row) as connection:
        yield Story(connection)
        connection.rollback()


# silence


def test_sessions_that_commands_ended_may_follow_each_other_at_once(story: Story) -> None:
    for end in ("user_request", "handler"):
        story.play(EVENING, end=end)
    story.play(EVENING)
    story.ask("SELECT request_session_end(%s, p_now => %s)", story.user_id, EVENING)
    story.play(EVENING)
    assert story.rows.sessions_made() == 4
    assert story.anomalies() == []


def test_a_boundary_of_the_policy_may_lie_within_ten_seconds(story: Story) -> None:
    story.change("INSERT INTO channel_policies VALUES ('demo', 25200, '20:39', 'UTC', NULL, 25200)"
              " ON CONFLICT (channel) DO UPDATE SET day_start = '20:39', timezone = 'UTC'")  # fmt: skip
    story.play(EVENING - 7 * SECOND)
    story.play(EVENING - 6 * SECOND)
    assert story.rows.sessions_made() == 2
    assert story.anomalies() == []


def test_a_redriven_message_lies_in_its_session(story: Story) -> None:
    story.say(EVENING)
    dead = story.begin()
    story.fail(dead)
    story.play(EVENING + 60 * SECOND, end="handler")
    story.ask("SELECT redrive_message(%s, NULL, %s)", dead.message_id, EVENING + 120 * SECOND)
    turn = story.turn(replies=[{"text": "x"}], tool_calls=[{"name": "x", "output": 1}])
    assert turn.message_id == dead.message_id
    assert story.anomalies() == []


# noise


def test_the_hour_of_day_rule_shows_as_sessions_opened_early(story: Story) -> None:
    """The incident, in numbers: four messages in 18 s, four sessions."""
    rule = "IF extract(hour FROM p_last_message_at) >= 20 THEN RETURN 'end_of_day'; END IF; RETURN CASE"
    story.change(shipped_code()["functions/should_create_new_session"].replace("RETURN CASE", rule))
    turns = [story.play(EVENING + timedelta(seconds=after)) for after in (0, 0.116, 8, 18)]
    opened = [(turn.session_id, turn.accepted_at) for turn in turns[1:]]
    assert story.anomalies() == [("opened_early", session_id, at) for session_id, at in opened]


def test_a_policys_name_on_an_end_that_is_not_the_policys_excuses_nothing(story: Story) -> None:
    story.open(EVENING, EVENING + SECOND, "timeout")
    second = story.open(EVENING + 2 * SECOND)
    assert story.anomalies() == [("opened_early", second, EVENING + 2 * SECOND)]


def test_two_open_sessions_show_and_overlap(story: Story) -> None:
    story.change("DROP INDEX idx_unique_active_session_per_user")
    story.open(EVENING)
    second = story.open(EVENING + 60 * SECOND)
    assert story.anomalies() == [(kind, second, EVENING + 60 * SECOND) for kind in ("overlap", "two_open")]


def test_a_session_that_begins_before_an_earlier_one_ended_shows(story: Story) -> None:
    story.open(EVENING, EVENING + 3_600 * SECOND, "operator")
    story.open(EVENING + 60 * SECOND, EVENING + 120 * SECOND, "operator")
    third = story.open(EVENING + 1_800 * SECOND)
    assert story.kinds() == ["overlap", "overlap"]
    assert story.anomalies()[1][1] == third


def test_two_sessions_at_the_same_instant_overlap_unless_one_is_empty(story: Story) -> None:
    story.open(EVENING, EVENING, "handler")
    story.open(EVENING, EVENING + SECOND, "handler")
    assert story.kinds() == []
    story.open(EVENING, EVENING + SECOND, "handler")
    assert story.kinds() == ["overlap"]


@pytest.mark.parametrize("seconds", [-1, 3_601])
def test_a_message_outside_its_session_shows(story: Story, seconds: int) -> None:
    turn = story.play(EVENING)
    story.play(EVENING + 3_600 * SECOND, end="handler")
    assert story.kinds() == []
    story.change("UPDATE messages SET accepted_at = %s WHERE id = %s", EVENING + seconds * SECOND, turn.message_id)
    assert story.anomalies() == [("outside", turn.session_id, EVENING + seconds * SECOND)]


def test_a_terminal_message_without_a_session_is_impossible(story: Story) -> None:
    turn = story.play(EVENING)
    with pytest.raises(psycopg.errors.CheckViolation):
        story.change("UPDATE messages SET session_id = NULL WHERE id = %s", turn.message_id)


def test_a_message_in_the_session_of_another_user_shows(story: Story) -> None:
    other = Story(story.connection)
    session_id = other.play(EVENING).session_id
    turn = story.play(EVENING)
    story.change("UPDATE messages SET session_id = %s WHERE id = %s", session_id, turn.message_id)
    assert story.anomalies() == [("foreign_session", session_id, EVENING)]


def test_a_tool_call_that_lies_elsewhere_than_its_message_shows(story: Story) -> None:
    first = story.play(EVENING, tool_calls=[{"name": "x", "output": 1}], end="handler")
    second = story.play(EVENING + 60 * SECOND)
    assert story.kinds() == []
    story.change("UPDATE tool_calls SET session_id = %s", second.session_id)
    assert story.kinds() == ["foreign_session"]
    story.change("ALTER TABLE tool_calls ALTER session_id DROP NOT NULL")
    story.change("UPDATE tool_calls SET session_id = NULL")
    assert story.kinds() == ["foreign_session"]
    story.change("UPDATE tool_calls SET session_id = %s", first.session_id)
    assert story.kinds() == []


# how it is asked


def test_asked_for_a_day_it_reads_a_days_rows(story: Story) -> None:
    """Else it could not be asked in production: each branch finds its rows by an index of time."""
    for way in ("seqscan", "indexscan", "mergejoin"):  # which are quicker, as long as there are but a few rows
        story.change(f"SET LOCAL enable_{way} = off")
    for table in ("conversation_sessions", "messages", "tool_calls"):  # of one row, no index would be worth it
        story.connection.execute(
            "SELECT pg_restore_relation_stats('schemaname', 'public', 'relname', %s::text, 'relpages', 1,"
            " 'reltuples', 100::real)",
            (table,),
        )
    plan = story.connection.execute("EXPLAIN SELECT * FROM session_anomalies WHERE at > now() - interval '1 day'")
    text = "\n".join(row[0] for row in plan)
    for index in ("conversation_sessions_by_start", "messages_by_time", "tool_calls_by_time"):
        assert index in text, text
    assert "Seq Scan on" not in text, text


def test_the_reuse_ratio_is_turns_by_sessions(story: Story) -> None:
    for second in range(5):
        story.play(EVENING + second * SECOND, replies=[{"text": "a reply is no turn"}])
    story.play(EVENING + 5 * SECOND, end="handler")
    story.play(EVENING + 6 * SECOND)
    row = story.ask("SELECT sum(turns) / count(*) AS ratio FROM session_reuse WHERE at > %s", EVENING - SECOND)
    assert row.ratio == 3.5
    assert story.ask("SELECT count(*) AS n FROM session_reuse WHERE at > %s", EVENING + SECOND).n == 1
