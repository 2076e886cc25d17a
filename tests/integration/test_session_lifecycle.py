"""How sessions end, are handed to a human and back, what a dead message does to them, and what the cache is worth."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import namedtuple_row

from onelane.bootstrap import Services, open_services
from onelane.bot import Turn
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.postgres.migrations import shipped_code
from tests.by_hand import ByHand
from tests.conftest import Accept, RunWorker, deliver, eventually
from tests.lane_state import cached_session
from tests.rows import Rows
from tests.working_off import work_off

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
MONDAY = datetime(2025, 7, 14, 20, 39, 6, tzinfo=UTC)


# what the tests read and do


@pytest.fixture
def bot(settings: Settings) -> Settings:
    """A bot that does what a message asks for: `bye`, `escalate`, `raise`, `wait <file>`, `state`."""
    return settings.model_copy(update={"handler": "tests.bots:handle", "attempts_max": 2, "retry_base_s": 0.01})


def _replies(rows: Rows, user_id: UUID) -> list[tuple[str, str]]:
    """Return texts, and why they are withheld: the channel has no way to send."""
    assert {reply.state for reply in rows.replies(user_id)} <= {"withheld"}
    return [(reply.text, reply.failure) for reply in rows.replies(user_id)]


def _is_quiet(services: Services) -> bool:
    return Rows(services.database).waiting() == 0 and not services.lanes.client.zcard("lanes:in")


@pytest.fixture
def by_hand(services: Services) -> ByHand:
    return ByHand(services.database)


@contextmanager
def planted(services: Services, name: str, body: str) -> Iterator[None]:
    """Replace a function, and restore it whatever happens."""
    services.database.rows(body)
    try:
        yield
    finally:
        services.database.rows(shipped_code()[f"functions/{name}"])


# ends


def test_the_word_new_ends_the_session_with_itself(
    rows: Rows, services: Services, bot: Settings, accept: Accept
) -> None:
    user_id = accept("alice", "hello").user_id
    word = accept("alice", " /NEW ")
    accept("alice", "hello again")
    work_off(services, bot)
    assert rows.shape(user_id) == [([1, 2], "user_request"), ([3], None)]
    ended = rows.sessions(user_id)[0]
    assert ended.ended_at == ended.last_message_at == rows.inbound(user_id)[word.seq - 1].accepted_at
    assert _replies(rows, user_id) == [("hello", "no_route"), ("hello again", "no_route")]


def test_the_first_turn_of_a_session_and_no_other_has_the_summary_of_the_session_before(
    rows: Rows, services: Services, bot: Settings, accept: Accept
) -> None:
    seen = []

    def handle(turn: Turn) -> None:
        seen.append((turn.message.text, turn.is_first, turn.previous_summary, turn.session.summary))
        if turn.message.text == "fail" and not turn.message.attempts:
            raise ValueError
        summary = f"{turn.session.summary or 'we spoke about'} {turn.message.text}"
        if turn.message.text == "bye":
            turn.end_session(summary)
        else:
            turn.session.summary = summary

    user_id = accept("alice", "rain").user_id
    for text in ("bye", "fail", "again"):
        accept("alice", text)
    work_off(services, bot, handle)
    assert rows.shape(user_id) == [([1, 2], "handler"), ([3, 4], None)]
    assert seen == [
        ("rain", True, None, None),
        ("bye", False, None, "we spoke about rain"),
        ("fail", True, "we spoke about rain bye", None),
        ("fail", True, "we spoke about rain bye", None),
        ("again", False, None, "we spoke about fail"),
    ]
    assert rows.sessions(user_id)[1].summary == "we spoke about fail again"


def test_an_operator_ends_a_quiet_session_at_once(
    rows: Rows, services: Services, bot: Settings, accept: Accept
) -> None:
    user_id = accept("alice").user_id
    work_off(services, bot)
    assert services.sessions.end(user_id) == "operator"
    assert services.sessions.end(user_id) is None
    accept("alice")
    work_off(services, bot)
    assert rows.shape(user_id) == [([1], "operator"), ([2], None)]


def test_an_operators_end_takes_effect_after_what_was_accepted_before_it(
    rows: Rows, services: Services, bot: Settings, accept: Accept
) -> None:
    user_id = accept("alice", "one").user_id
    accept("alice", "two")
    assert services.sessions.end(user_id) == "noted"
    accept("alice", "three")
    work_off(services, bot)
    assert rows.shape(user_id) == [([1, 2], "operator"), ([3], None)]
    accepted = [message.accepted_at for message in rows.inbound(user_id)]
    assert accepted[1] < rows.sessions(user_id)[0].ended_at < accepted[2]


def test_two_ends_noted_before_the_worker_came_are_two_ends(
    rows: Rows, services: Services, bot: Settings, accept: Accept
) -> None:
    """The note had room for one: the second moved the first, and messages on both sides shared a session."""
    user_id = accept("alice", "one").user_id
    for text in ("two", "three"):
        assert services.sessions.end(user_id) == "noted"
        accept("alice", text)
    assert services.sessions.end(user_id) == services.sessions.end(user_id) == "noted"
    work_off(services, bot)
    assert rows.shape(user_id) == [([1], "operator"), ([2], "operator"), ([3], "operator")]


def test_a_running_turn_commits_into_the_session_that_an_operator_ends(
    rows: Rows, services: Services, bot: Settings, accept: Accept, run_worker: RunWorker, tmp_path: Path
) -> None:
    with run_worker(bot):
        user_id = accept("alice", f"wait {tmp_path / 'go'}").user_id
        eventually(lambda: rows.sessions(user_id))
        assert services.sessions.end(user_id) == "noted"
        accept("alice", "afterwards")
        (tmp_path / "go").touch()
        eventually(lambda: _is_quiet(services))
    assert rows.shape(user_id) == [([1], "operator"), ([2], None)]
    assert len(rows.replies(user_id)) == 2


def test_the_policys_instant_wins_over_a_command_that_comes_later(
    rows: Rows, by_hand: ByHand, services: Services
) -> None:
    by_hand.say(MONDAY)
    by_hand.turn()
    assert by_hand.do("request_session_end(%s, p_now => %s)", by_hand.user_id, MONDAY + 7 * HOUR) == "timeout"
    assert rows.sessions(by_hand.user_id)[0].ended_at == MONDAY + 7 * HOUR


def test_an_end_does_not_wait_for_a_redriven_message(rows: Rows, by_hand: ByHand, services: Services) -> None:
    """It has its session already; and a note on it would come too late for messages accepted in between."""
    dead = by_hand.say(MONDAY)
    by_hand.fail(by_hand.begin())
    by_hand.do("redrive_message(%s, NULL, %s)", dead.message_id, MONDAY)
    assert by_hand.do("request_session_end(%s, p_now => %s)", by_hand.user_id, MONDAY + SECOND) == "operator"
    by_hand.say(MONDAY + HOUR)
    assert by_hand.turn().seq == 1
    assert by_hand.turn().seq == 2
    assert rows.shape(by_hand.user_id) == [([1], "operator"), ([2], None)]


def test_the_sweep_ends_a_silent_session_at_the_policys_instant(
    rows: Rows, services: Services, by_hand: ByHand
) -> None:
    by_hand.say(MONDAY)
    by_hand.turn()
    assert services.sessions.sweep().ended == 1
    session = rows.sessions(by_hand.user_id)[0]
    assert (session.ended_at, session.ended_reason) == (MONDAY + 7 * HOUR, "timeout")


def test_no_message_is_accepted_before_an_end_although_the_clock_went_back(
    rows: Rows, by_hand: ByHand, services: Services
) -> None:
    """The sweep ended a session at an instant that the clock, put back, had yet to reach: two sessions at one time."""
    by_hand.say(MONDAY)
    by_hand.turn()
    by_hand.do("(sweep_sessions(NULL, 10, %s)).seen", MONDAY + 8 * HOUR)
    by_hand.say(MONDAY + 7 * HOUR - SECOND)
    by_hand.turn()
    first, second = rows.sessions(by_hand.user_id)
    assert first.ended_at == second.started_at == MONDAY + 7 * HOUR


# a human takes over


def test_while_a_human_has_the_session_the_bot_is_silent_and_nothing_waits(
    rows: Rows, services: Services, bot: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    with run_worker(bot):
        user_id = accept("alice", "hello").user_id
        eventually(lambda: _is_quiet(services))
        session_id = services.sessions.escalate(user_id)
        accept("alice", "a human, please")
        accept("alice", "/new")
        eventually(lambda: _is_quiet(services))
        assert rows.sessions(user_id)[0].status == "escalated"
        assert services.sessions.hand_back(user_id) == session_id
        accept("alice", "thank you")
        eventually(lambda: _is_quiet(services))
    assert _replies(rows, user_id) == [("hello", "no_route"), ("thank you", "no_route")]
    assert rows.shape(user_id) == [([1, 2, 3, 4], None)]
    assert services.sessions.hand_back(user_id) is None


def test_a_handler_hands_the_session_over_and_says_so(
    rows: Rows, services: Services, bot: Settings, accept: Accept
) -> None:
    user_id = accept("alice", "escalate").user_id
    accept("alice", "anybody?")
    work_off(services, bot)
    assert _replies(rows, user_id) == [("a human takes over", "no_route")]
    assert rows.states(user_id) == ["processed", "processed"]


def test_the_reply_of_a_turn_that_an_escalation_overtook_is_withheld(
    rows: Rows, services: Services, bot: Settings, accept: Accept, run_worker: RunWorker, tmp_path: Path
) -> None:
    with run_worker(bot):
        text = f"wait {tmp_path / 'go'}"
        user_id = accept("alice", text).user_id
        eventually(lambda: rows.sessions(user_id))
        services.sessions.escalate(user_id)
        (tmp_path / "go").touch()
        eventually(lambda: _is_quiet(services))
    assert _replies(rows, user_id) == [(text, "escalated")]


def test_the_end_of_a_turn_that_an_escalation_overtook_is_withheld(rows: Rows, by_hand: ByHand) -> None:
    """The human has the session: a handler that knows nothing of it took it away again."""
    by_hand.say(MONDAY)
    turn = by_hand.begin()
    by_hand.do("escalate_session(%s, p_now => %s)", by_hand.user_id, MONDAY + SECOND)
    assert by_hand.commit(turn, end="handler").outcome == "committed"
    assert [(session.id, session.status) for session in rows.sessions(by_hand.user_id)] == [
        (turn.session_id, "escalated")
    ]


def test_a_conversation_with_a_human_stays_with_them_until_its_user_is_silent(rows: Rows, by_hand: ByHand) -> None:
    """It fell back to the bot seven hours after it began, in the middle of an hourly conversation."""
    by_hand.channel = "support"
    rows.publish("support", idle_s=24 * 3_600, escalation_s=7 * 3_600)
    by_hand.say(MONDAY)
    session_id = by_hand.turn().session_id
    assert by_hand.do("escalate_session(%s, p_now => %s)", by_hand.user_id, MONDAY + HOUR) == str(session_id)
    hours = [*range(1, 12), 18 - 1 / 3_600, 25 - 1 / 3_600]
    for hour in hours:
        by_hand.say(MONDAY + hour * HOUR)
    turns = [by_hand.turn() for _ in hours]  # all of them years later
    assert [turn.session_status for turn in turns] == ["escalated"] * 12 + ["active"]
    assert {turn.session_id for turn in turns} == {session_id}


def _in_turn(by_hand: ByHand) -> None:
    by_hand.work_off()


def _later(_: ByHand) -> None:
    pass


def _after_a_sweep(by_hand: ByHand) -> None:
    by_hand.do("(sweep_sessions(NULL, 1000, %s)).seen", MONDAY + 20 * HOUR)


@pytest.mark.parametrize("and_then", [_in_turn, _later, _after_a_sweep])
def test_an_escalation_is_of_the_session_of_the_last_message_however_late_it_is_worked_off(
    rows: Rows, by_hand: ByHand, and_then: Callable[[ByHand], None]
) -> None:
    """It was of the session of the first that waited: over by then, so that the bot went on with the next."""
    for at in (MONDAY, MONDAY + 8 * HOUR, MONDAY + 16 * HOUR):
        by_hand.say(at)
        and_then(by_hand)
    assert by_hand.do("escalate_session(%s, p_now => %s)", by_hand.user_id, MONDAY + 17 * HOUR) is not None
    and_then(by_hand)
    by_hand.say(MONDAY + 18 * HOUR)
    and_then(by_hand)
    by_hand.work_off()
    assert rows.shape(by_hand.user_id) == [([1], "timeout"), ([2], "timeout"), ([3, 4], None)]
    assert [session.status for session in rows.sessions(by_hand.user_id)] == ["ended", "ended", "escalated"]


@pytest.mark.parametrize("is_worked_off", [True, False])
def test_nothing_is_escalated_when_the_last_message_is_over_too(
    rows: Rows, by_hand: ByHand, *, is_worked_off: bool
) -> None:
    by_hand.say(MONDAY)
    if is_worked_off:
        by_hand.work_off()
    assert by_hand.do("escalate_session(%s, p_now => %s)", by_hand.user_id, MONDAY + 7 * HOUR) is None
    by_hand.say(MONDAY + 8 * HOUR)
    by_hand.work_off()
    assert [session.status for session in rows.sessions(by_hand.user_id)] == ["ended", "active"]


def test_of_what_waits_the_bot_answers_only_what_lies_in_earlier_sessions(by_hand: ByHand) -> None:
    for at in (MONDAY, MONDAY + 8 * HOUR, MONDAY + 9 * HOUR):
        by_hand.say(at)
    assert by_hand.do("escalate_session(%s, p_now => %s)", by_hand.user_id, MONDAY + 10 * HOUR) == "noted"
    assert [by_hand.turn().session_status for _ in range(3)] == ["active", "escalated", "escalated"]


def test_a_noted_escalation_can_be_taken_back(by_hand: ByHand) -> None:
    for at in (MONDAY, MONDAY + 8 * HOUR):
        by_hand.say(at)
    by_hand.do("escalate_session(%s, p_now => %s)", by_hand.user_id, MONDAY + 9 * HOUR)
    assert by_hand.do("hand_back_session(%s)", by_hand.user_id) == "noted"
    assert by_hand.do("hand_back_session(%s)", by_hand.user_id) is None
    assert [by_hand.turn().session_status for _ in range(2)] == ["active", "active"]


def test_an_escalation_is_of_the_session_of_the_next_message(by_hand: ByHand, services: Services) -> None:
    """The open row may be over by policy: that one was escalated, the operator believed it, and the bot answered."""
    by_hand.say(MONDAY)
    old = by_hand.turn().session_id
    by_hand.say(MONDAY + 8 * HOUR)
    escalated = by_hand.do("escalate_session(%s, p_now => %s)", by_hand.user_id, MONDAY + 8 * HOUR + SECOND)
    turn = by_hand.turn()
    assert str(turn.session_id) == escalated != str(old)
    assert turn.session_status == "escalated"


def test_a_session_whose_time_is_over_is_not_escalated(rows: Rows, by_hand: ByHand, services: Services) -> None:
    by_hand.say(MONDAY)
    by_hand.turn()
    assert by_hand.do("escalate_session(%s, p_now => %s)", by_hand.user_id, MONDAY + 7 * HOUR) is None
    assert rows.shape(by_hand.user_id) == [([1], "timeout")]


# the dead, and the dead that wait again


def test_a_dead_message_counts_for_its_sessions_time(rows: Rows, by_hand: ByHand, services: Services) -> None:
    by_hand.say(MONDAY)
    by_hand.turn()
    by_hand.say(MONDAY + 6 * HOUR)
    by_hand.fail(by_hand.begin())
    by_hand.say(MONDAY + 12 * HOUR)
    by_hand.turn()
    assert rows.shape(by_hand.user_id) == [([1, 2, 3], None)]


def test_a_redriven_message_runs_next_in_its_session_and_changes_nothing_about_it(
    rows: Rows, by_hand: ByHand, services: Services
) -> None:
    dead = by_hand.say(MONDAY)
    by_hand.fail(by_hand.begin())
    by_hand.say(MONDAY + HOUR)
    by_hand.turn()
    by_hand.say(MONDAY + 9 * HOUR)
    by_hand.turn()
    before = rows.sessions(by_hand.user_id)
    by_hand.say(MONDAY + 9 * HOUR + SECOND)
    assert by_hand.do("redrive_message(%s, NULL, %s)", dead.message_id, MONDAY + 10 * HOUR) == by_hand.user_id
    assert by_hand.do("redrive_message(%s)", dead.message_id) is None
    again = by_hand.turn(replies=[{"text": "at last"}])
    assert (again.seq, again.session_id, again.hint) == (1, before[0].id, "unused")
    assert rows.sessions(by_hand.user_id) == before
    assert by_hand.turn().session_id == before[1].id


def test_a_turn_that_a_redriven_message_overtook_commits_nothing(by_hand: ByHand, services: Services) -> None:
    """Redis forgot the lease of the running turn. Both read the state before: one of two changes would be lost."""
    dead = by_hand.say(MONDAY)
    by_hand.fail(by_hand.begin())
    by_hand.say(MONDAY + SECOND)
    running = by_hand.begin()
    by_hand.do("redrive_message(%s)", dead.message_id)
    redriven = by_hand.begin(fence=2)
    assert (redriven.seq, redriven.outcome) == (1, "turn")
    assert by_hand.commit(running, session_state={"n": 1}).outcome == "fenced"


def test_a_redriven_message_in_an_open_session_does_not_move_it_back(
    rows: Rows, by_hand: ByHand, services: Services
) -> None:
    dead = by_hand.say(MONDAY)
    by_hand.fail(by_hand.begin())
    by_hand.say(MONDAY + 6 * HOUR)
    by_hand.turn()
    by_hand.do("redrive_message(%s, NULL, %s)", dead.message_id, MONDAY + 6 * HOUR)
    by_hand.turn()
    by_hand.say(MONDAY + 12 * HOUR)
    by_hand.turn()
    assert rows.shape(by_hand.user_id) == [([1, 2, 3], None)]


def test_a_message_redriven_by_the_operator_is_answered_before_those_that_wait(
    rows: Rows, services: Services, bot: Settings, accept: Accept
) -> None:
    dead = accept("alice", "raise")
    work_off(services, bot)
    accept("alice", "hello")
    rows.redrive(dead.message_id)
    services.lanes.enqueue(dead.user_id, dead.message_id)
    rows.rewrite(dead.message_id, "now")
    work_off(services, bot)
    assert rows.processed(dead.user_id) == [1, 2]
    assert rows.shape(dead.user_id) == [([1, 2], None)]


def test_an_escalation_by_a_redriven_message_counts_from_now(by_hand: ByHand, services: Services) -> None:
    """It counted from when the message was first accepted, seven hours before: over before it began."""
    dead = by_hand.say(MONDAY)
    by_hand.fail(by_hand.begin())
    by_hand.say(MONDAY + 6 * HOUR)
    by_hand.turn()
    by_hand.do("redrive_message(%s, NULL, %s)", dead.message_id, MONDAY + 6 * HOUR)
    by_hand.turn(escalate=True)
    by_hand.say(MONDAY + 7 * HOUR + SECOND)
    assert by_hand.begin().session_status == "escalated"


def test_an_escalation_by_a_redriven_message_is_not_as_old_as_its_session(by_hand: ByHand, services: Services) -> None:
    services.database.rows("UPDATE channel_policies SET escalation_timeout_s = 3600")
    dead = by_hand.say(MONDAY)
    by_hand.fail(by_hand.begin())
    by_hand.do("redrive_message(%s, NULL, %s)", dead.message_id, MONDAY + 2 * HOUR)
    by_hand.turn(escalate=True)
    by_hand.say(MONDAY + 2.5 * HOUR)
    assert by_hand.begin().session_status == "escalated"


ORDERS = {
    "before the others": ("redrive", "again", "work", "act"),
    "while another runs": ("begin", "redrive", "commit", "again", "work", "act"),
    "after the others": ("work", "redrive", "again", "act"),
    "after a sweep": ("work", "sweep", "redrive", "sweep", "again", "act"),
    "after a command": ("work", "act", "redrive", "again"),
    "after a command that waits for the others": ("act", "redrive", "again", "work"),
}
"""When a redriven message runs again, others are worked off, the sweep comes by, and an operator ends the session."""


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_a_redrive_changes_neither_why_nor_when_a_session_ended(
    rows: Rows, services: Services, order: tuple[str, ...]
) -> None:
    """Whether others had been worked off, or the sweep had come by, decided whether its handler ended the session."""
    for hours in ((), (6,), (6, 12), (8,), (6, 14)):
        for acts_at in (None, 15):

            def play(order: tuple[str, ...], hours: tuple[int, ...] = hours, acts_at: int | None = acts_at) -> Any:
                user = ByHand(services.database)
                _play(user, order, hours, acts_at)
                sessions = zip(rows.sessions(user.user_id), rows.shape(user.user_id), strict=True)
                return [(session.status, session.ended_at, shape) for session, shape in sessions]

            assert play(order) == play(("work", "act")), (hours, acts_at)


def _play(user: ByHand, order: tuple[str, ...], hours: tuple[int, ...], acts_at: int | None) -> None:
    """Let the first message die; bring the rest of its story about in an order, and let time go by."""
    dead = user.say(MONDAY)
    user.fail(user.begin())
    for hour in hours:
        user.say(MONDAY + hour * HOUR)
    running: list[Any] = []
    steps: dict[str, Callable[[], object]] = {
        "begin": lambda: running.append(user.begin()),
        "commit": lambda: running[0].outcome == "turn" and user.commit(running[0]),
        "redrive": lambda: user.rows.redrive(dead.message_id, MONDAY + 14.5 * HOUR),
        "again": lambda: user.commit(user.begin(), end="handler"),
        "work": user.work_off,
        "sweep": lambda: user.do("(sweep_sessions(NULL, 1000, %s)).seen", MONDAY + 14.4 * HOUR),
        "act": lambda: (
            acts_at and user.do("request_session_end(%s, p_now => %s)", user.user_id, MONDAY + acts_at * HOUR)
        ),
    }
    for step in order:
        steps[step]()
    user.work_off()
    user.do("(sweep_sessions(NULL, 1000, %s)).seen", MONDAY + 40 * HOUR)


# a command names what it is about: asked again, after a lost answer, it does nothing more


def _end(by_hand: ByHand, session_id: UUID | None, last_seq: int, at: datetime) -> str | None:
    did: str | None = by_hand.do(
        "request_session_end(%s, 'operator', %s, %s, %s)", by_hand.user_id, session_id, last_seq, at
    )
    return did


def test_an_end_asked_for_again_ends_no_later_session(rows: Rows, by_hand: ByHand) -> None:
    by_hand.say(MONDAY)
    seen = by_hand.turn().session_id
    assert _end(by_hand, seen, 1, MONDAY + SECOND) == "operator"
    by_hand.say(MONDAY + 2 * SECOND)
    assert _end(by_hand, seen, 1, MONDAY + 3 * SECOND) == "operator"
    by_hand.turn()
    assert _end(by_hand, seen, 1, MONDAY + 3 * SECOND) == "operator"
    assert rows.shape(by_hand.user_id) == [([1], "operator"), ([2], None)]


@pytest.mark.parametrize("is_settled", [True, False])
def test_an_end_asked_for_again_is_noted_on_no_later_message(rows: Rows, by_hand: ByHand, is_settled: bool) -> None:
    by_hand.say(MONDAY)
    assert _end(by_hand, None, 1, MONDAY + SECOND) == "noted"
    by_hand.say(MONDAY + 2 * SECOND)
    if is_settled:
        by_hand.turn()
        by_hand.begin()
    assert _end(by_hand, None, 1, MONDAY + 3 * SECOND) == "noted"
    by_hand.work_off()
    assert rows.shape(by_hand.user_id) == [([1], "operator"), ([2], None)]
    assert rows.sessions(by_hand.user_id)[0].ended_at == MONDAY + SECOND


def test_an_end_covers_what_waits_although_a_worker_has_opened_the_next_session_first(
    rows: Rows, by_hand: ByHand
) -> None:
    """The operator saw the session before, which was over; the end found another one open, and nothing was ended."""
    by_hand.say(MONDAY)
    seen = by_hand.turn().session_id
    by_hand.say(MONDAY + 8 * HOUR)
    by_hand.begin()
    assert _end(by_hand, seen, 2, MONDAY + 8 * HOUR + SECOND) == "noted"
    by_hand.turn()
    assert rows.shape(by_hand.user_id) == [([1], "timeout"), ([2], "operator")]


@pytest.mark.parametrize("act", ["redrive_message", "drop_message"])
def test_an_act_on_a_death_is_not_done_to_a_later_one(rows: Rows, by_hand: ByHand, act: str) -> None:
    message_id = by_hand.say(MONDAY).message_id
    by_hand.fail(by_hand.begin())
    died_at = rows.message(message_id).processed_at
    assert by_hand.do("redrive_message(%s, %s, %s)", message_id, died_at, MONDAY) == by_hand.user_id
    by_hand.fail(by_hand.begin())
    assert by_hand.do(f"{act}(%s, %s)", message_id, died_at) is None
    assert by_hand.do(f"{act}(%s, %s)", message_id, rows.message(message_id).processed_at) == by_hand.user_id


def test_a_resume_asked_for_again_ends_no_later_pause(rows: Rows, by_hand: ByHand) -> None:
    by_hand.say(MONDAY)
    rows.pause(by_hand.user_id)
    paused_at = rows.user(by_hand.user_id).paused_at
    assert by_hand.do("resume_user(%s, %s)", by_hand.user_id, paused_at)
    rows.pause(by_hand.user_id)
    assert not by_hand.do("resume_user(%s, %s)", by_hand.user_id, paused_at)
    assert by_hand.begin().outcome == "paused"


def test_a_hand_back_asked_for_again_gives_no_later_session_back(rows: Rows, by_hand: ByHand) -> None:
    by_hand.say(MONDAY)
    seen = by_hand.turn(escalate=True).session_id
    assert by_hand.do("hand_back_session(%s, %s)", by_hand.user_id, seen) == str(seen)
    by_hand.say(MONDAY + 8 * HOUR)
    by_hand.turn(escalate=True)
    assert by_hand.do("hand_back_session(%s, %s)", by_hand.user_id, seen) is None
    assert [session.status for session in rows.sessions(by_hand.user_id)] == ["ended", "escalated"]


def test_an_escalation_asked_for_again_is_of_no_later_session(rows: Rows, by_hand: ByHand) -> None:
    by_hand.say(MONDAY)
    seen = by_hand.turn().session_id
    ask = "escalate_session(%s, p_session_id => %s, p_last_seq => 1, p_now => %s)"
    assert by_hand.do(ask, by_hand.user_id, seen, MONDAY + SECOND) == str(seen)
    by_hand.say(MONDAY + 8 * HOUR)
    by_hand.turn()
    assert by_hand.do(ask, by_hand.user_id, seen, MONDAY + 8 * HOUR + SECOND) is None
    assert [session.status for session in rows.sessions(by_hand.user_id)] == ["ended", "active"]


# get_or_create_session by hand


def test_called_twice_by_hand_it_answers_the_same_session(
    rows: Rows, services: Services, bot: Settings, accept: Accept
) -> None:
    user_id = accept("alice").user_id
    waiting = [rows.session_of(user_id) for _ in range(2)]
    work_off(services, bot)
    quiet = [rows.session_of(user_id) for _ in range(2)]
    services.sessions.end(user_id)
    ended = [rows.session_of(user_id) for _ in range(2)]
    assert waiting == quiet
    assert ended[0] == ended[1] != quiet[0]


def test_by_hand_it_does_not_open_a_session_at_the_time_of_a_redriven_message(
    rows: Rows, by_hand: ByHand, services: Services
) -> None:
    """It was the oldest waiting; its session long ended, the new one began before that, across later ones."""
    dead = by_hand.say(MONDAY)
    by_hand.fail(by_hand.begin())
    by_hand.say(MONDAY + 8 * HOUR)
    by_hand.turn(end="handler")
    by_hand.do("redrive_message(%s, NULL, %s)", dead.message_id, MONDAY + 9 * HOUR)
    before = datetime.now(UTC)
    session_id = rows.session_of(by_hand.user_id)
    opened = next(session for session in rows.sessions(by_hand.user_id) if session.id == session_id)
    assert opened.started_at >= before - SECOND


def test_a_user_who_never_wrote_has_no_session_and_the_error_says_so(rows: Rows, services: Services) -> None:
    with pytest.raises(psycopg.errors.NoDataFound, match="there is no user 00000000-0000-0000-0000-00000000002a"):
        rows.session_of(UUID(int=42))


@pytest.mark.parametrize("is_cached", [True, False])
def test_an_error_inside_is_an_error_and_no_session_is_created_or_ended(
    rows: Rows, services: Services, bot: Settings, accept: Accept, run_worker: RunWorker, is_cached: bool
) -> None:
    user_id = accept("alice").user_id
    if is_cached:
        work_off(services, bot)
        accept("alice", "again")
    else:
        rows.session_of(user_id)
    before = rows.sessions(user_id)
    body = shipped_code()["functions/should_create_new_session"]
    body = body.replace("RETURN CASE", "PERFORM nextval('tries'); RAISE 'planted'; RETURN CASE")
    services.database.rows("CREATE SEQUENCE IF NOT EXISTS tries")  # counts on, whatever is rolled back
    tries = rows.ask("SELECT nextval('tries') AS nr").nr
    with planted(services, "should_create_new_session", body):
        with pytest.raises(psycopg.errors.RaiseException):
            rows.session_of(user_id)
        with run_worker(bot):
            eventually(lambda: rows.ask("SELECT last_value FROM tries").last_value > tries + 1)
        assert rows.states(user_id)[-1] == "received"
        assert rows.sessions(user_id) == before
    work_off(services, bot)
    assert rows.states(user_id)[-1] == "processed"
    assert [session.id for session in rows.sessions(user_id)] == [session.id for session in before]


# what lives in a session


def test_a_sessions_state_dies_with_it_and_a_users_outlives_it(
    rows: Rows, services: Services, bot: Settings, accept: Accept
) -> None:
    user_id = accept("alice", "state").user_id
    for text in ("state", "/new", "state"):
        accept("alice", text)
    work_off(services, bot)
    assert rows.texts(user_id) == ["1 1", "2 2", "1 3"]


def test_history_and_tool_outputs_are_of_this_session_only(services: Services, by_hand: ByHand) -> None:
    by_hand.say(MONDAY)
    first = by_hand.turn(tool_calls=[{"name": "list", "output": [1]}], replies=[{"text": "reply"}], end="handler")
    by_hand.say(MONDAY + SECOND)
    second = by_hand.turn(tool_calls=[{"name": "list", "output": [2]}])
    by_hand.say(MONDAY + 2 * SECOND)
    by_hand.turn(tool_calls=[{"name": "list", "output": [3]}])
    assert services.sessions.tool_output(first.session_id, "list") == [1]
    assert services.sessions.tool_output(second.session_id, "list") == [3]
    assert services.sessions.tool_output(second.session_id, "other") is None
    assert [(line.seq, line.role) for line in services.sessions.history(first.session_id, 9)] == [
        (1, "user"),
        (1, "tool"),
        (1, "bot"),
    ]
    assert [line.seq for line in services.sessions.history(second.session_id, 1)] == [3]


# the cache


def _ttl_s(services: Services, user_id: UUID) -> float:
    return services.lanes.client.pttl(f"session:user:{user_id}") / 1000


@pytest.mark.parametrize(
    ("policy", "most_s"),
    [
        ({"idle_timeout_s": 500}, 500),
        ({"max_age_s": 400}, 400),
        ({"day_start": "soon", "timezone": "Asia/Kolkata"}, 3_600),
    ],
)
def test_the_cached_id_lives_until_the_policy_could_end_the_session(
    rows: Rows, services: Services, bot: Settings, accept: Accept, policy: dict[str, Any], most_s: int
) -> None:
    if "day_start" in policy:
        soon = rows.ask(
            "SELECT date_trunc('minute', now() + interval '59 min') AT TIME ZONE 'Asia/Kolkata' AS at"
        ).at.time()
        policy = {**policy, "day_start": soon}
    channel = bot.channels["demo"].model_copy(update=policy)
    bot = Settings(**{**dict(bot), "channels": {"demo": channel}})
    user_id = accept("alice").user_id
    work_off(services, bot)
    assert most_s - 130 < _ttl_s(services, user_id) <= most_s
    services.lanes.client.pexpire(f"session:user:{user_id}", 1_000)
    accept("alice")
    began = time.monotonic()
    work_off(services, bot)
    took_s = time.monotonic() - began  # Redis hears at the end how long it is to keep what was true at the commit
    ends_at = rows.ask(
        "SELECT extract(epoch FROM ends_at - clock_timestamp())::float AS left_s FROM conversation_sessions s,"
        " session_end_by_policy('demo', s.started_at, s.last_message_at)"
    )
    assert most_s - 130 < _ttl_s(services, user_id) <= ends_at.left_s + took_s


def _by_user(services: Services, bot: Settings, accept: Accept, user_id: UUID) -> None:
    accept("alice", "/new")
    work_off(services, bot)


def _by_handler(services: Services, bot: Settings, accept: Accept, user_id: UUID) -> None:
    accept("alice", "bye")
    work_off(services, bot)


def _by_operator(services: Services, bot: Settings, accept: Accept, user_id: UUID) -> None:
    services.sessions.end(user_id)


def _by_noted_end(services: Services, bot: Settings, accept: Accept, user_id: UUID) -> None:
    accept("alice", "hello")
    services.sessions.end(user_id)
    work_off(services, bot)


def _by_sweep(services: Services, bot: Settings, accept: Accept, user_id: UUID) -> None:
    late = open_services(bot, now=lambda: datetime.now(UTC) + 8 * HOUR)
    late.sessions.sweep()
    late.close()


def _by_policy(services: Services, bot: Settings, accept: Accept, user_id: UUID) -> None:
    late = open_services(bot, now=lambda: datetime.now(UTC) + 8 * HOUR)
    deliver(late, [Delivery(senders=("alice",), external_id="late", text="escalate")])
    late.close()
    work_off(services, bot)


def _by_escalation(services: Services, bot: Settings, accept: Accept, user_id: UUID) -> None:
    services.sessions.escalate(user_id)
    accept("alice", "anybody?")
    work_off(services, bot)


@pytest.mark.parametrize(
    "end", [_by_user, _by_handler, _by_operator, _by_noted_end, _by_sweep, _by_policy, _by_escalation]
)
def test_the_cached_id_is_gone_after_every_end_and_while_a_human_has_the_session(
    rows: Rows,
    services: Services,
    bot: Settings,
    accept: Accept,
    end: Callable[[Services, Settings, Accept, UUID], None],
) -> None:
    user_id = accept("alice").user_id
    work_off(services, bot)
    assert cached_session(services, user_id) == str(rows.sessions(user_id)[0].id)
    end(services, bot, accept, user_id)
    assert rows.sessions(user_id)[0].status != "active"
    assert cached_session(services, user_id) is None


def test_a_hit_is_a_pure_read_and_a_miss_is_not(services: Services, by_hand: ByHand, settings: Settings) -> None:
    by_hand.say(MONDAY)
    session_id = by_hand.turn().session_id
    by_hand.say(MONDAY + SECOND)
    with psycopg.connect(settings.database_url, row_factory=namedtuple_row) as connection:
        reader = ByHand.on(connection, by_hand.user_id)
        for hint, is_read in ((session_id, True), (None, False)):
            turn = reader.begin(hint)
            [[written]] = connection.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL").fetchall()
            assert (turn.session_id, turn.hint, written) == (session_id, "hit" if is_read else "miss", not is_read)
            connection.rollback()


def test_whatever_the_hint_the_session_is_the_right_one_and_the_hint_is_judged(
    services: Services, by_hand: ByHand
) -> None:
    other = ByHand(services.database)
    other.say(MONDAY)
    foreign = other.turn().session_id
    by_hand.say(MONDAY)
    ended = by_hand.turn(end="handler").session_id
    by_hand.say(MONDAY)
    right = by_hand.turn().session_id
    by_hand.say(MONDAY)
    for hint, worth in ((right, "hit"), (None, "miss"), (ended, "wrong"), (foreign, "wrong"), (uuid4(), "wrong")):
        turn = by_hand.begin(hint)
        assert (turn.session_id, turn.hint) == (right, worth)


def test_a_hint_is_wrong_from_the_policys_boundary_on(services: Services, by_hand: ByHand) -> None:
    by_hand.say(MONDAY)
    session_id = by_hand.turn().session_id
    by_hand.say(MONDAY + 7 * HOUR)
    turn = by_hand.begin(session_id)
    assert turn.hint == "wrong"
    assert turn.session_id != session_id


@pytest.mark.parametrize("poison", ["not a uuid", "", "{}", "00000000-0000-0000-0000-000000000000", "foreign", "ended"])
def test_a_wrong_value_in_the_cache_is_found_out_and_repaired(
    rows: Rows, services: Services, bot: Settings, accept: Accept, poison: str
) -> None:
    foreign = accept("bob").user_id
    user_id = accept("alice", "/new").user_id
    accept("alice")
    work_off(services, bot)
    ended, right = (str(session.id) for session in rows.sessions(user_id))
    value = {"foreign": cached_session(services, foreign), "ended": ended}.get(poison, poison)
    services.lanes.client.set(f"session:user:{user_id}", value or "")
    accept("alice", "still here?")
    work_off(services, bot)
    assert rows.shape(user_id) == [([1], "user_request"), ([2, 3], None)]
    assert cached_session(services, user_id) == right


def test_without_redis_commands_take_effect_and_sessions_are_resolved(
    services: Services, bot: Settings, by_hand: ByHand
) -> None:
    away = open_services(bot.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    by_hand.say(MONDAY)
    first = Rows(away.database).session_of(by_hand.user_id)
    assert by_hand.turn().session_id == first
    assert away.sessions.escalate(by_hand.user_id) is None  # its time was over years ago
    second = Rows(away.database).session_of(by_hand.user_id)
    assert away.sessions.escalate(by_hand.user_id) == away.sessions.hand_back(by_hand.user_id) == second
    assert away.sessions.end(by_hand.user_id) == "operator"
    away.close()
