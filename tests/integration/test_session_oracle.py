"""The SQL against the model of the policy: whatever happens, and however late it is worked off, sessions are the same.

A story is a list of steps of one user. It is played with the real functions, and with the model in the order in which
things take effect; then the sessions must be equal: their messages, times, states and reasons, and the replies too.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from psycopg.rows import namedtuple_row

from onelane.bootstrap import Services
from onelane.dev.embedded import EmbeddedPostgres
from onelane.postgres.migrations import shipped_code
from tests.by_hand import ByHand
from tests.conftest import examples_of, slow_after
from tests.policy_model import Model, Policy, Waiting, day_start_on

pytestmark = pytest.mark.timeout(1_800)  # the nightly profile plays 2,000 stories

ZONES = (
    "Europe/Paris",
    "Europe/Dublin",  # winter time is its daylight saving, an hour back
    "Asia/Kolkata",  # half an hour off
    "Australia/Lord_Howe",  # changes by half an hour
    "America/St_Johns",  # half an hour off, and changes
    "America/Havana",  # changes at midnight
    "Pacific/Apia",  # had no 30 December 2011
)
YEARS = {"Pacific/Apia": (2011, 2012)}
POISON_ATTEMPTS = 3
LATER = timedelta(days=400)
MICROSECOND = timedelta(microseconds=1)
EFFECTS: dict[str, dict[str, Any]] = {
    "handler": {"end": "handler"},
    "user_request": {"end": "user_request"},
    "escalate": {"escalate": True},
}
LOOK = """
SELECT end_session_if_over(u, %(now)s), end_escalation_if_over(u, %(now)s) FROM users u WHERE id = %(user_id)s
"""
"""What every command does before it acts: end what is over."""
NOBODY = UUID(int=0)
FAR_FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
FOREIGN = "SELECT id FROM conversation_sessions WHERE user_id <> %s AND status = 'active'"
"""The session of somebody else, whose time is not over before FAR_FUTURE."""


# the steps of a story


class Wait(NamedTuple):
    """How much time passes: so many seconds, or up to a boundary of the policy, and some microseconds."""

    seconds: float = 0
    until: str | None = None
    microseconds: int = 0


class Say(NamedTuple):
    wait: Wait
    does: str | None
    clock_back: float = 0


class Work(NamedTuple):
    turns: int
    hint: str


class Begin(NamedTuple):
    """Begin a turn that is committed only when work goes on."""

    hint: str


class End(NamedTuple):
    wait: Wait


class Escalate(NamedTuple):
    wait: Wait


class HandBack(NamedTuple):
    pass


class Redrive(NamedTuple):
    which: int
    does: str | None


class Sweep(NamedTuple):
    wait: Wait


class Peek(NamedTuple):
    """Call get_or_create_session by hand."""


class Story(NamedTuple):
    policy: Policy
    begins: datetime
    steps: list[Any]


class Turn(NamedTuple):
    seq: int
    at: datetime
    does: str | None
    redriven_at: datetime | None = None
    is_handled: bool = True


class Player:
    """Plays a story to Postgres and to the model."""

    def __init__(self, connection: psycopg.Connection[Any], story: Story) -> None:
        self.sql = connection
        self.by_hand = ByHand.on(connection, channel=f"oracle-{uuid4()}")
        self.policy, self.model = story.policy, Model(story.policy)
        self.now = self.logical = story.begins
        self.swept_at = story.begins
        self.waiting: dict[int, Turn] = {}
        self.running: tuple[Turn, Any] | None = None
        self.noted: dict[int, list[datetime]] = {}
        self.ids: list[UUID] = []
        self.dead: list[int] = []
        self.hints: list[UUID] = []
        self._publish()

    @property
    def user_id(self) -> UUID:
        """The user; before the first message there is none."""
        return self.by_hand.user_id if self.ids else NOBODY

    def play(self, steps: list[Any]) -> tuple[list[Any], list[Any]]:
        """Play `steps`, work the rest off, let time go by; return the sessions of Postgres and of the model."""
        for step in steps:
            getattr(self, type(step).__name__.lower())(step)
        self.work(Work(1_000, "right"))
        self.sql.execute(LOOK, {"user_id": self.user_id, "now": self.now})
        self.model.look(self.now)
        stored, expected = self.stored(), self.expected()
        self.sweep_at(self.now + LATER)
        self.model.look(self.now + LATER)
        return stored + self.stored(), expected + self.expected()

    # what a step does

    def say(self, step: Say) -> None:
        self.pass_time(step.wait)
        now = max(self.now - timedelta(seconds=step.clock_back), self.swept_at)
        row = self.by_hand.say(now)
        self.logical = max(self.logical, now)
        self.ids.append(row.message_id)
        assert row.seq == len(self.ids)
        self.waiting[row.seq] = Turn(row.seq, self.logical, step.does)

    def work(self, step: Work) -> None:
        for _ in range(step.turns):
            if self.running is None:
                if not self.waiting:
                    return
                self.begin_turn(step.hint)
            self.settle()

    def begin(self, step: Begin) -> None:
        if self.running is None and self.waiting:
            self.begin_turn(step.hint)

    def end(self, step: End) -> None:
        self.pass_time(step.wait)
        self.now = max(self.logical, self.now)
        did = self.ask("SELECT request_session_end(%s, p_now => %s)", self.user_id, self.now)[0]
        if did is not None:  # an end that finds nothing to end is no event in the user's time
            self.logical = self.now
        fresh = self.fresh()
        assert (did == "noted") == bool(fresh)
        if fresh:
            self.noted.setdefault(max(fresh), []).append(self.now)
        else:
            self.model.end(self.now)

    def escalate(self, step: Escalate) -> None:
        self.pass_time(step.wait)
        self.now = max(self.logical, self.now)
        if self.ids:  # before the first message there is no user for whom time could pass
            self.logical = self.now
        self.ask("SELECT escalate_session(%s, p_now => %s)", self.user_id, self.now)
        waiting = [Waiting(seq, self.waiting[seq].at, tuple(self.noted.get(seq, ()))) for seq in self.fresh()]
        self.model.escalate(self.now, waiting, self.running[0].seq if self.running else None)

    def handback(self, _: HandBack) -> None:
        self.ask("SELECT hand_back_session(%s)", self.user_id)
        self.model.hand_back()

    def redrive(self, step: Redrive) -> None:
        if not self.dead:
            return
        seq = self.dead.pop(step.which % len(self.dead))
        fresh = self.fresh()
        self.model.look(self.waiting[fresh[0]].at if fresh else self.now)
        assert self.ask("SELECT redrive_message(%s, NULL, %s)", self.ids[seq - 1], self.now)[0] == self.user_id
        self.waiting[seq] = Turn(seq, self.now, step.does, redriven_at=max(self.now, self.logical))

    def sweep(self, step: Sweep) -> None:
        self.pass_time(step.wait)
        self.sweep_at(self.now)

    def peek(self, _: Peek) -> None:
        """By hand while a message waits: it must change nothing. (What waits redriven comes before it.)"""
        if self.waiting and not any(turn.redriven_at for turn in self.waiting.values()):
            first, second = (self.by_hand.resolve() for _ in range(2))
            assert first == second

    # how

    def begin_turn(self, hint: str) -> tuple[Turn, Any]:
        turn = self.waiting[min(self.waiting)]
        row = self.by_hand.begin(self.hint(hint))
        assert row.outcome == "turn"
        assert row.seq == turn.seq
        is_handled = self.model.begin_again(turn.seq) if turn.redriven_at else self.model.begin(turn.seq, turn.at)
        assert is_handled == (row.session_status != "escalated")
        self.running = turn._replace(is_handled=is_handled), row
        return self.running

    def settle(self) -> None:
        assert self.running is not None
        turn, row = self.running
        does = turn.does if turn.is_handled else None
        failures = {"dies": POISON_ATTEMPTS, "stumbles": POISON_ATTEMPTS - 1}.get(does or "", 0)
        is_handled = turn.is_handled
        for nr in range(failures):
            if nr and turn.seq == min(self.waiting):  # else something was redriven meanwhile and would come first
                again = self.by_hand.begin()
                is_handled = self.model.begin_again(turn.seq)
                assert (again.session_id, again.session_status != "escalated") == (row.session_id, is_handled)
                if not is_handled:
                    break
            self.by_hand.fail(row, attempts_max=POISON_ATTEMPTS, attempts=nr)
        if does == "dies" and is_handled:
            self.dead.append(turn.seq)
        elif is_handled:
            effects = {"replies": [{"text": "answer"}], **EFFECTS.get(does or "", {})}
            assert self.by_hand.commit(row, **effects).outcome == "committed"
            self.model.commit(turn.seq, does, turn.redriven_at)
        else:
            assert self.by_hand.commit(row).outcome == "committed"
        self.hints.append(row.session_id)
        del self.waiting[turn.seq]
        self.running = None
        for at in self.noted.pop(turn.seq, []):
            self.model.end(at)

    def pass_time(self, wait: Wait) -> None:
        session = self.model.open
        last = max(self.logical, session.last_message_at if session else self.logical)
        boundaries = {
            "timeout": last + self.policy.idle,
            "end_of_day": self.policy.end(last, last)[0],
            "max_age": (session.started_at if session else last) + (self.policy.max_age or timedelta()),
            "escalation": ((session and session.escalated_at) or last) + self.policy.escalation,
        }
        goal = boundaries[wait.until] if wait.until else self.now + timedelta(seconds=wait.seconds)
        self.now = max(self.now, goal + wait.microseconds * MICROSECOND)

    def sweep_at(self, now: datetime) -> None:
        self.swept_at = now
        self.ask("SELECT * FROM sweep_sessions(NULL, 1000, %s)", now)

    def fresh(self) -> list[int]:
        return [turn.seq for turn in self.waiting.values() if not turn.redriven_at]

    def hint(self, kind: str) -> UUID | None:
        match kind:
            case "right":
                return self.hints[-1] if self.hints else None
            case "oldest":
                return self.hints[0] if self.hints else None
            case "foreign":
                return self.ask(FOREIGN, self.user_id)[0]
            case "invented":
                return uuid4()
        return None

    def ask(self, query: str, *params: Any) -> Any:
        return self.sql.execute(query, params).fetchone()

    def stored(self) -> list[Any]:
        shapes = self.by_hand.rows.shape(self.user_id)
        return [
            (session.started_at, session.last_message_at, session.status, session.ended_at, reason, seqs)
            for session, (seqs, reason) in zip(self.by_hand.rows.sessions(self.user_id), shapes, strict=True)
        ] + [(reply.turn_seq, reply.state) for reply in self.by_hand.rows.replies(self.user_id)]

    def expected(self) -> list[Any]:
        return [
            (
                *(session.started_at, session.last_message_at, session.status, session.ended_at),
                *(session.reason, sorted(session.seqs)),
            )
            for session in self.model.sessions
        ] + sorted(self.model.answers.items())

    def _publish(self) -> None:
        policy = self.policy
        self.by_hand.rows.publish(
            self.by_hand.channel,
            int(policy.idle.total_seconds()),
            policy.day_start,
            policy.zone,
            int(policy.max_age.total_seconds()) if policy.max_age else None,
            int(policy.escalation.total_seconds()),
        )


# stories

SMALL = st.sampled_from([0, 0.000001, 0.116, 1, 10, 60, 1_799.999999, 1_800])
LONG = st.sampled_from([3_600, 7_200, 14_400, 25_199, 25_200, 36_000, 86_400, 200_000])
WAITS = st.one_of(
    st.builds(Wait, SMALL, st.none(), st.just(0)),
    st.builds(Wait, LONG, st.none(), st.just(0)),
    st.builds(Wait, st.floats(0, 100_000), st.none(), st.just(0)),
    st.builds(
        Wait,
        st.just(0),
        st.sampled_from(["timeout", "end_of_day", "max_age", "escalation"]),
        st.sampled_from([-1, 0, 0, 1, -10_000_000]),
    ),
)
HINTS = st.sampled_from(["right", "right", "none", "oldest", "foreign", "invented"])
THEMES: dict[str, tuple[list[str | None], list[str]]] = {
    # what messages do, and what else happens: a story in which everything may happen has too little of each
    "policy": ([None], ["Sweep", "Peek"]),
    "ends": ([None, None, "handler", "user_request", "stumbles"], ["End", "End", "Begin", "Sweep"]),
    "deaths": ([None, "dies"], ["Redrive", "Redrive", "Sweep", "Peek"]),
    "late effects": (["dies", "dies", "handler", "escalate"], ["Redrive", "Redrive", "End", "Sweep"]),
    "silence": (["dies", "escalate"], ["Redrive", "Redrive", "Redrive", "Sweep", "Sweep", "Sweep"]),
    "overdue humans": (["dies", "dies", "escalate"], ["Redrive", "Redrive", "Redrive", "Escalate"]),
    "patient humans": ([None, None, None, None, "escalate"], ["Escalate"]),
    "humans": ([None, None, None, "escalate", "handler"], ["Escalate", "HandBack", "Begin", "Sweep", "Peek"]),
    "everything": (
        [None, None, None, "handler", "user_request", "escalate", "dies", "dies", "stumbles"],
        ["Begin", "End", "Escalate", "HandBack", "Redrive", "Redrive", "Sweep", "Peek"],
    ),
}


def steps_of(theme: str) -> st.SearchStrategy[Any]:
    does, others = THEMES[theme]
    of = {
        "Begin": st.builds(Begin, HINTS),
        "End": st.builds(End, WAITS),
        "Escalate": st.builds(Escalate, WAITS),
        "HandBack": st.just(HandBack()),
        "Redrive": st.builds(Redrive, st.integers(0, 3), st.sampled_from(does)),
        "Sweep": st.builds(Sweep, WAITS),
        "Peek": st.just(Peek()),
    }
    saying = st.builds(Say, WAITS, st.sampled_from(does), st.sampled_from([0, 0, 0, 0.5, 5]))
    work = st.builds(Work, st.integers(1, 6), HINTS)
    return st.one_of(saying, saying, saying, work, work, *(of[name] for name in others))


def clock_changes(zone: str, year: int) -> list[datetime]:
    """The instants of a year at which the zone's clocks change."""
    hours = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=nr) for nr in range(366 * 24)]
    offsets = [hour.astimezone(ZoneInfo(zone)).utcoffset() for hour in hours]
    return [hours[nr] for nr in range(1, len(hours)) if offsets[nr] != offsets[nr - 1]]


CLOCK_CHANGES = {
    zone: [instant for year in YEARS.get(zone, (2024, 2025)) for instant in clock_changes(zone, year)] for zone in ZONES
}


@st.composite
def beginnings(draw: Callable[..., Any], zone: str) -> datetime:
    """Around a change of the clocks, midnight, 20:39, six, or the end of February."""
    local = draw(
        st.sampled_from(
            [
                datetime(2024, 2, 28, 23, 59, 59),
                datetime(2024, 2, 29, 20, 39, 6),
                datetime(2025, 3, 1, 0, 0, 0),
                datetime(2025, 7, 14, 5, 59, 55),
                datetime(2024, 12, 31, 23, 0, 0),
                datetime(2025, 11, 3, 20, 39, 6),
            ]
        )
    ).replace(tzinfo=ZoneInfo(zone))
    instant = draw(st.sampled_from([local, local, *CLOCK_CHANGES[zone]])).astimezone(UTC)
    return instant - draw(st.sampled_from([timedelta(), *(timedelta(hours=hours) for hours in (1, 3, 8, 26))]))


@st.composite
def stories(draw: Callable[..., Any], theme: str | None = None) -> Story:
    zone = draw(st.sampled_from(ZONES))
    hours = st.sampled_from([0.5, 1, 2, 3.5, 7, 12])
    day_starts = [time(6), time(6), time(0), time(1, 45), time(2), time(2, 15), time(2, 30), time(20, 39), time(23, 30)]
    policy = Policy(
        idle=timedelta(hours=draw(hours)),
        day_start=draw(st.none() | st.sampled_from(day_starts)),
        zone=zone,
        max_age=draw(st.none() | st.builds(timedelta, hours=st.sampled_from([1, 3.5, 7, 24]))),
        escalation=timedelta(hours=draw(hours)),
    )
    steps = steps_of(theme or draw(st.sampled_from(sorted(THEMES))))
    return Story(policy, draw(beginnings(zone)), draw(st.lists(steps, min_size=10, max_size=40)))


# the proof


@pytest.fixture
def connection(services: Services, postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.url, autocommit=True, row_factory=namedtuple_row, prepare_threshold=0) as connection:
        connection.execute("SET TimeZone TO 'UTC'")
        somebody_else = ByHand.on(connection)
        somebody_else.say(FAR_FUTURE)
        somebody_else.turn()
        yield connection


def differs(connection: psycopg.Connection[Any], story: Story) -> bool:
    """Play a story inside a transaction of its own; an error of the functions is a difference too."""
    try:
        with connection.transaction(force_rollback=True):
            stored, expected = Player(connection, story).play(story.steps)
    except (psycopg.Error, AssertionError):
        return True
    return stored != expected


@pytest.mark.parametrize("examples", [40, pytest.param(None, marks=pytest.mark.slow)])
def test_sessions_in_postgres_are_those_of_the_model(connection: psycopg.Connection[Any], examples: int | None) -> None:
    @examples_of(examples)
    @given(stories())
    def play(story: Story) -> None:
        stored, expected = Player(connection, story).play(story.steps)
        assert stored == expected

    play()
    assert connection.execute("SELECT * FROM session_anomalies WHERE kind <> 'opened_early'").fetchall() == []


DAY_STARTS = "00:00 00:30 01:59 02:00 02:15 02:30 03:00 06:00 23:30"


@pytest.mark.slow
def test_both_time_zone_databases_agree_about_when_days_start(connection: psycopg.Connection[Any]) -> None:
    """Else the test above would compare the two databases of the world's clocks, not the two programs."""
    for zone in ZONES:
        days = {(change + timedelta(days=nr)).date() for change in CLOCK_CHANGES[zone] for nr in (-2, -1, 0, 1, 2)}
        days |= {datetime(2024, 2, 28, tzinfo=UTC).date(), datetime(2024, 2, 29, tzinfo=UTC).date()}
        for day_start in map(time.fromisoformat, DAY_STARTS.split()):
            for day in sorted(days):
                [[asked]] = connection.execute(
                    "SELECT day_start_instant(%s, %s, %s)", (day, day_start, zone)
                ).fetchall()
                assert asked == day_start_on(day, day_start, zone), (zone, day, day_start)


PLANTED = {
    "the hour-of-day rule": (
        "policy",
        "should_create_new_session",
        "RETURN CASE",
        """IF extract(hour FROM p_last_message_at AT TIME ZONE 'Europe/Paris') >= 20
               AND extract(hour FROM p_accepted_at AT TIME ZONE 'Europe/Paris') >= 6 THEN
                RETURN 'end_of_day';
           END IF;
           RETURN CASE""",
    ),
    "a boundary belongs to the old session": (
        "policy",
        "should_create_new_session",
        "v_end.ends_at <= p_",
        "v_end.ends_at < p_",
    ),
    "the worker's clock counts": (
        "policy",
        "begin_turn",
        "get_or_create_session(v_user_id, v_message.accepted_at)",
        "get_or_create_session(v_user_id, clock_timestamp())",
    ),
    "a session ends when it is noticed": ("policy", "get_or_create_session", "least(v_ends_at, v_at)", "v_at"),
    "the last boundary wins": ("policy", "session_end_by_policy", "v_instant < ends_at", "v_instant > ends_at"),
    "a tie goes to the rule looked at last": (
        "policy",
        "session_end_by_policy",
        "v_instant < ends_at",
        "v_instant <= ends_at",
    ),
    "no day starts when the clock jumps over it": (
        "policy",
        "day_start_instant",
        "v_shown <> v_wanted AND",
        "false AND",
    ),
    "a day is a calendar day later": ("policy", "next_day_start", "::date - 1", "::date + 1"),
    "the command wins over the policy": ("ends", "end_open_session", "end_session_if_over(p_user, p_at)", "NULL"),
    "a noted end is forgotten": ("ends", "settle_message", "p_message.end_at IS NOT NULL", "false"),
    "the last of two noted ends counts": (
        "ends",
        "request_session_end",
        "coalesce(end_at, v_user.last_accepted_at)",
        "v_user.last_accepted_at",
    ),
    "an end does not wait": ("ends", "request_session_end", "IF v_last IS NULL THEN", "IF true THEN"),
    "an end waits for what is redriven": ("late effects", "request_session_end", "AND session_id IS NULL", ""),
    "time runs backwards": (
        "ends",
        "accept_one",
        "greatest(coalesce((p_item ->> 'now')::timestamptz, clock_timestamp()), v_user.last_accepted_at)",
        "(p_item ->> 'now')::timestamptz",
    ),
    "a hint is not asked whose it is": ("everything", "begin_turn", "AND s.user_id = u.id", ""),
    "a hint is not asked whether it is open": ("everything", "begin_turn", "v_session.status = 'active'", "true"),
    "a hint is not asked about its time": (
        "everything",
        "begin_turn",
        "v_message.accepted_at) IS NULL",
        "v_message.accepted_at) IS NULL OR v_session.status = 'active'",
    ),
    "the sweep does not see who waits": ("policy", "sweep_sessions", "v_user.waiting > 0", "false"),
    "the dead do not count": (
        "deaths",
        "settle_message",
        "ELSE greatest(last_message_at, p_message.accepted_at)",
        "WHEN p_state = 'dead' THEN last_message_at ELSE greatest(last_message_at, p_message.accepted_at)",
    ),
    "a redriven message moves its session back": (
        "deaths",
        "settle_message",
        "ELSE greatest(last_message_at, p_message.accepted_at)",
        "ELSE p_message.accepted_at",
    ),
    "a redriven message finds a new session": ("deaths", "begin_turn", "v_message.session_id IS NOT NULL", "false"),
    "escalation never expires": (
        "humans",
        "end_escalation_if_over",
        "(policy_of(p_user.channel)).escalation_timeout_s",
        "1000000000",
    ),
    "an escalation expires although its user writes": (
        "patient humans",
        "end_escalation_if_over",
        "greatest(escalated_at, last_message_at)",
        "escalated_at",
    ),
    "an escalation expires before it begins": (
        "humans",
        "end_escalation_if_over",
        "greatest(escalated_at, last_message_at)",
        "last_message_at",
    ),
    "an escalation is of the session of the next message": (
        "humans",
        "escalate_session",
        "v_in_use.opens_seq = v_in_use.next_seq",
        "v_in_use.next_seq IS NOT NULL",
    ),
    "an escalation is of whatever session is open": (
        "humans",
        "escalate_session",
        "v_session_id uuid := v_in_use.session_id",
        "v_session_id uuid := (SELECT id FROM conversation_sessions WHERE user_id = p_user_id AND status <> 'ended')",
    ),
    "an escalation does not ask about noted ends": (
        "everything",
        "session_in_use_at",
        "v_message.end_at IS NOT NULL",
        "false",
    ),
    "an escalation does not ask whether the session is over": (
        "humans",
        "session_in_use_at",
        "v_last_at, p_at) IS NOT NULL",
        "v_last_at, p_at) IS NULL AND false",
    ),
    "a noted escalation is forgotten": (
        "humans",
        "begin_turn",
        "IF v_message.escalate_at IS NOT NULL THEN",
        "IF false THEN",
    ),
    "a noted escalation is not taken back": (
        "humans",
        "hand_back_session",
        "SET escalate_at = NULL",
        "SET kind = kind",
    ),
    "a turn ends the session that a human took over": ("humans", "settle_message", "AND NOT v_overtaken", ""),
    "an end is not taken back when a message is redriven": (
        "late effects",
        "redrive_message",
        "RETURN v_user.id",
        """UPDATE inbox SET end_at = v_dead.end_at, end_reason = 'operator'
            WHERE id = v_dead.id AND v_dead.end_at IS NOT NULL;
           RETURN v_user.id""",
    ),
    "a redriven message ends its session": (
        "late effects",
        "settle_message",
        "AND p_message.redriven_at IS NULL THEN",
        "THEN",
    ),
    "a redriven message finds a human whose session is over": (
        "overdue humans",
        "redrive_message",
        "PERFORM end_session_if_over(v_user, coalesce(v_at, v_now));",
        "",
    ),
    "a redriven message finds a human whose time is over": (
        "silence",
        "redrive_message",
        "PERFORM end_escalation_if_over(v_user, coalesce(v_at, v_now));",
        "",
    ),
    "a redriven message lies below where looking begins": (
        "deaths",
        "redrive_message",
        "least(next_seq, v_dead.seq)",
        "next_seq",
    ),
    "looking begins above a redriven message": (
        "everything",
        "settle_message",
        "IF p_user.next_seq <> p_message.seq THEN",
        "IF false THEN",
    ),
}


FIRST = (
    "the hour-of-day rule",
    "a noted end is forgotten",
    "a hint is not asked about its time",
)
"""The bugs that the fast run plants; the slow one plants the others, and the nightly one these."""
FOUND_LATE = {
    "looking begins above a redriven message",
    "an escalation expires although its user writes",
    "a redriven message finds a human whose time is over",
    "no day starts when the clock jumps over it",
}


@pytest.mark.timeout(900)  # it is found sooner or later
@pytest.mark.parametrize("bug", slow_after(len(FIRST), dict.fromkeys([*FIRST, *PLANTED]), FOUND_LATE))
def test_the_model_sees_a_planted_bug(connection: psycopg.Connection[Any], bug: str) -> None:
    theme, name, right, wrong = PLANTED[bug]
    shipped = shipped_code()[f"functions/{name}"]
    assert right in shipped
    with connection.transaction(force_rollback=True):
        connection.execute(shipped.replace(right, wrong))
        try:
            find(
                stories(theme),
                lambda story: differs(connection, story),
                settings=settings(
                    max_examples=20_000, phases=[Phase.generate], derandomize=True, database=None, deadline=None
                ),
            )
        except NoSuchExample:
            pytest.fail("no story showed it")
