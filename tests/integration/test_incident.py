"""The incident, replayed: the flaws split a conversation, this service does not."""

import os
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from onelane.cli import onelane
from onelane.dev.incident.account import Account, Incident
from onelane.dev.incident.naive import Flaws, Row, Rows, StatementFailed, is_new_day_by_hours
from onelane.dev.incident.naive_bot import replay
from onelane.dev.incident.private_stack import _neutral_environment
from onelane.dev.incident.timeline import CHOSEN, EVENING, LISTED, PAIR
from onelane.errors import ConfigError
from onelane.sources import channels_in
from onelane_web.development.replay import application

ROOT = Path(__file__).parents[2]
SOUND = Flaws(hour_of_day_rule=False, read_then_act=False, fallback_ends_all=False)
FIRST_CONTACT = (PAIR, (LISTED,), (CHOSEN,))
"""An evening on which two messages of somebody unknown come at once."""


def at(hour: int, minute: int = 0) -> datetime:
    """Name an instant of that evening, or of the next morning, by the hour in Paris (UTC + 1)."""
    day = 17 if hour >= 12 else 18
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC) - timedelta(hours=1)


class Unreadable(Rows):
    """A table that cannot be read: the function is missing, or a permission is."""

    def active(self) -> Row | None:
        raise StatementFailed("permission denied")


# The command


@dataclass
class Run:
    """What one run of the command answered and printed."""

    incident: Incident
    printed: str


@pytest.fixture(scope="module")
def run() -> Run:
    with redirect_stdout(StringIO()) as printed:
        incident: Any = onelane.main(["incident"], standalone_mode=False)
    assert isinstance(incident, Incident), printed.getvalue()
    return Run(incident, printed.getvalue())


def test_the_service_keeps_the_evening_in_one_session(run: Run) -> None:
    real = run.incident.real
    assert real.messages_per_session == {"S1": 5}
    assert real.sessions[0].ended_by is None
    assert [real.name(session) for session in real.sessions_with_list] == ["S1"]


def test_the_service_finds_champigny(run: Run) -> None:
    assert run.incident.real.is_found
    assert "18 quai de la Marne" in str(run.incident.real.tap.answer)


def test_the_service_numbers_and_answers_every_message_of_the_evening(run: Run) -> None:
    lines = run.incident.real.lines
    assert sorted(line.seq or 0 for line in lines) == [1, 2, 3, 4, 5]
    assert all(line.answer for line in lines)
    alone = [line for line in lines if line.moment not in PAIR]
    assert [line.accepted_at for line in alone] == [line.moment.at for line in alone]


def test_the_naive_resolver_opens_a_session_for_every_message_and_loses_the_list(run: Run) -> None:
    naive = run.incident.naive
    assert list(naive.messages_per_session.values()) == [1, 1, 1, 1, 1]
    assert [naive.name(session) for session in naive.sessions_with_list] == ["S2"]
    assert naive.is_list_lost
    assert not naive.is_found


def test_both_tables_and_what_they_show_are_printed(run: Run) -> None:
    naive, real = (side.splitlines() for side in run.printed.split("Onelane: "))
    for side, account in ((naive, run.incident.naive), (real, run.incident.real)):
        rows = [line.split() for line in side if line.startswith("  20:39:")]
        assert [row[0] for row in rows][:2] == ["20:39:06.000", "20:39:17.303"]
        assert [account.name(line.session) in row for line, row in zip(account.lines, rows, strict=True)] == [True] * 5
    assert naive[-2] == "  Champigny found     no"
    assert real[-1] == "  Champigny found     yes"


def test_the_docs_show_what_the_command_prints(run: Run) -> None:
    told = (ROOT / "docs" / "INCIDENT.md").read_text()
    # Which of two messages that come at once is the first to be accepted, differs from run to run.
    lines = [line for line in run.printed.splitlines() if "20:39:24" not in line]
    assert [line for line in lines if line and line not in told] == []


def test_a_replay_that_proves_nothing_says_what_differs(run: Run) -> None:
    naive, real = run.incident.naive, run.incident.real
    assert run.incident.differences == []
    assert Incident(naive=real, real=naive).differences == [
        "the naive resolver did not open several sessions",
        "the naive resolver did not lose the list of sites",
        "Onelane opened 5 sessions, not one",
        "Onelane did not answer the choice with Champigny",
        "Onelane's numbers of the messages have a gap",
    ]
    late = replace(real, lines=[replace(line, accepted_at=at(22)) for line in real.lines])
    assert Incident(naive, late).differences == ["Onelane did not use the times of the evening"]


def test_the_command_fails_when_the_replay_proves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    upside_down = Incident(naive=run.incident.real, real=run.incident.naive)
    monkeypatch.setattr("onelane.dev.incident.replay", lambda _tell: upside_down)
    with redirect_stdout(StringIO()):
        assert onelane.main(["incident"], standalone_mode=False) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("reached", ["starting a private PostgreSQL and Redis", "posting the evening's webhooks"])
def test_stopped_at_any_time_it_leaves_no_process_and_no_folder(
    tmp_path: Path, number: signal.Signals, reached: str
) -> None:
    command = [sys.executable, "-m", "onelane", "incident"]
    env = {**os.environ, "TMPDIR": str(tmp_path), "CHANNELS": "nothing that this command reads"}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stderr is not None
        next(line for line in run.stderr if reached in line)
        if number is signal.SIGINT:
            os.killpg(run.pid, number)  # as a terminal does, to helpers too
        else:
            run.send_signal(number)
        assert run.stderr.read().splitlines()[-1] == "Aborted!"
        assert run.wait(30) == 1
    assert list(tmp_path.iterdir()) == []
    assert processes_naming(str(tmp_path)) == []


def processes_naming(text: str) -> list[str]:
    """List the command lines that hold `text`."""
    listed = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if text in line]


def test_channels_of_ones_own_do_not_reach_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANNEL_SUPPORT", '{"provider": "standard", "secrets": ["mine"]}')
    monkeypatch.setenv("CHANNELS_FILE", "channels.json")
    assert channels_in(_neutral_environment()) == {}


def test_outside_development_no_request_says_what_time_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.delenv("DEVELOPMENT", raising=False)
    with pytest.raises(ConfigError, match="DEVELOPMENT"):
        application()


# The naive resolver: its outcome follows from its flaws


def sessions(account: Account) -> list[str | None]:
    """Say how each session ended, in order."""
    return [opened.ended_by for opened in account.sessions]


def test_without_its_flaws_the_resolver_keeps_one_session_and_finds_the_site() -> None:
    for evening in (EVENING, FIRST_CONTACT):
        account = replay(evening, flaws=SOUND)
        assert sessions(account) == [None]
        assert account.is_found


def test_the_hour_of_day_rule_alone_splits_every_message_of_the_evening() -> None:
    account = replay(flaws=replace(SOUND, hour_of_day_rule=True))
    assert sessions(account) == ["the hour-of-day rule"] * 4 + [None]
    assert account.is_list_lost


def test_without_the_hour_of_day_rule_the_evening_stays_in_one_session() -> None:
    account = replay(flaws=Flaws(hour_of_day_rule=False))
    assert sessions(account) == [None]
    assert account.is_found


def test_one_of_two_requests_at_once_loses_its_session_to_the_fallback() -> None:
    account = replay()
    assert sessions(account)[2:4] == ["the fallback", "the hour-of-day rule"]
    assert [account.name(line.session) for line in account.lines[2:4]] == ["S3", "S4"]


def test_reading_then_acting_opens_two_sessions_for_a_first_contact() -> None:
    race = replace(SOUND, read_then_act=True)
    assert sessions(replay((PAIR,), flaws=race, rows=Rows(unique_index=False))) == [None, None]


def test_the_unique_index_alone_turns_the_race_into_a_failed_request() -> None:
    account = replay((PAIR,), flaws=replace(SOUND, read_then_act=True))
    assert sessions(account) == [None]
    assert [line.answer is None for line in account.lines] == [False, True]


def test_the_fallback_turns_the_failed_request_into_a_second_session_and_ends_the_first() -> None:
    account = replay((PAIR,), flaws=replace(SOUND, read_then_act=True, fallback_ends_all=True))
    assert sessions(account) == ["the fallback", None]
    assert account.messages_per_session == {"S1": 1, "S2": 1}


def test_a_lock_over_reading_and_acting_leaves_the_fallback_nothing_to_do() -> None:
    account = replay((PAIR,), flaws=Flaws(hour_of_day_rule=False, read_then_act=False))
    assert sessions(account) == [None]


def test_a_failing_look_up_splits_every_message_when_there_is_a_fallback() -> None:
    account = replay(flaws=replace(SOUND, fallback_ends_all=True), rows=Unreadable())
    assert sessions(account) == ["the fallback"] * 4 + [None]
    assert account.is_list_lost


def test_a_failing_look_up_without_a_fallback_ends_no_session() -> None:
    account = replay(flaws=SOUND, rows=Unreadable())
    assert sessions(account) == []
    assert [line.answer for line in account.lines] == [None] * 5


@pytest.mark.parametrize(
    ("last", "now", "is_split"),
    [
        (at(20), at(20, 1), True),
        (at(21, 39), at(21, 40), True),
        (at(23, 58), at(23, 59), True),
        (at(23, 59), at(0, 1), False),
        (at(20), at(6), True),
        (at(19, 59), at(20), False),
        (at(19, 59), at(9), False),
    ],
    ids=[
        "20:00 → 20:01",
        "21:39 → 21:40",
        "23:58 → 23:59",
        "midnight",
        "20:00 → 6:00",
        "19:59 → 20:00",
        "19:59 → 9:00",
    ],
)
def test_comparing_hours_splits_all_evening_and_misses_a_new_day_after_an_early_end(
    last: datetime, now: datetime, is_split: bool
) -> None:
    assert is_new_day_by_hours(last, now) is is_split


def test_the_evening_keeps_the_times_of_the_report() -> None:
    seconds = [(moment.at - at(21, 39)).total_seconds() for step in EVENING for moment in step]
    assert [round(second, 3) for second in seconds] == [6, 17.303, 24.533, 24.648, 27.151]
    assert round((PAIR[1].at - PAIR[0].at).total_seconds() * 1000) == 116
