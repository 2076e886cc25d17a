"""Postgres' clock was ahead for a while: users' time stands still, the doctor shows them, a command repairs them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from click.testing import CliRunner, Result

from onelane import sessions
from onelane.bootstrap import Services
from onelane.cli import onelane
from onelane.config import Settings
from onelane.doctor import sample
from onelane.doctor import sessions as session_checks
from onelane.doctor.finding import Deployment, Health
from tests.by_hand import ByHand
from tests.rows import Rows

SECOND = timedelta(seconds=1)
HOUR = 3_600 * SECOND
YEAR = timedelta(days=365)
Invoke = Callable[..., Result]


@pytest.fixture
def by_hand(services: Services) -> ByHand:
    return ByHand(services.database)


@pytest.fixture
def invoke(settings: Settings, _root_logger_as_it_was: None) -> Invoke:
    servers = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    return lambda *arguments: CliRunner().invoke(onelane, list(map(str, arguments)), env=servers)


def test_times_that_were_ahead_go_back_in_their_order_and_nothing_that_waits_is_lost(
    rows: Rows, services: Services, by_hand: ByHand
) -> None:
    now = datetime.now(UTC)
    by_hand.say(now - HOUR)
    by_hand.turn()
    everything: list[dict[str, Any]] = [{"end": "handler"}, {"escalate": True}, {}]
    for nr, effects in enumerate(everything):
        by_hand.say(now + YEAR + nr * SECOND)
        by_hand.turn(**effects)
    by_hand.say(now + YEAR + 3 * SECOND)
    running = by_hand.begin()
    by_hand.say(now + YEAR + 4 * SECOND)
    by_hand.do("request_session_end(%s, p_now => %s)", by_hand.user_id, now + YEAR + 5 * SECOND)
    by_hand.say(now)  # the clock is right again, and this user's time stands still

    ahead = services.sessions.fit_time(by_hand.user_id)
    assert ahead is not None
    assert YEAR - HOUR < ahead <= YEAR + 5 * SECOND
    accepted = [message.accepted_at for message in rows.inbound(by_hand.user_id)]
    assert accepted == sorted(accepted)
    gaps = [(later - one).total_seconds() for one, later in pairwise(accepted[1:])]
    assert gaps == [1, 1, 1, 1, 1]
    assert accepted[-1] == rows.user(by_hand.user_id).last_accepted_at <= datetime.now(UTC)
    assert rows.user(by_hand.user_id).waiting == 3

    assert by_hand.commit(running).outcome == "stale"
    by_hand.work_off()
    assert rows.user(by_hand.user_id).last_accepted_at < by_hand.rows.ask("SELECT clock_timestamp() AS now").now
    assert rows.shape(by_hand.user_id) == [([1], "timeout"), ([2], "handler"), ([3, 4, 5, 6], "operator"), ([7], None)]
    assert rows.anomalies() == []
    by_hand.say()
    assert rows.inbound(by_hand.user_id)[-1].accepted_at > accepted[-1]


@pytest.mark.parametrize("ahead", [SECOND, YEAR], ids=["not ahead", "ahead"])
def test_asked_again_it_finds_nothing_ahead(rows: Rows, services: Services, by_hand: ByHand, ahead: timedelta) -> None:
    by_hand.say(datetime.now(UTC) - HOUR + ahead)
    by_hand.turn()
    services.sessions.fit_time(by_hand.user_id)
    before: list[Any] = [rows.user(by_hand.user_id), rows.sessions(by_hand.user_id), rows.inbound(by_hand.user_id)]
    assert services.sessions.fit_time(by_hand.user_id) is None
    assert [rows.user(by_hand.user_id), rows.sessions(by_hand.user_id), rows.inbound(by_hand.user_id)] == before


def test_a_session_that_was_swept_too_early_ends_now(rows: Rows, services: Services, by_hand: ByHand) -> None:
    """The clock was ahead only for the sweep: the end lies ahead, and with it all that the user writes until then."""
    now = datetime.now(UTC)
    by_hand.say(now - HOUR)
    by_hand.turn()
    by_hand.do("(sweep_sessions(NULL, 10, %s)).seen", now + 8 * HOUR)
    assert services.sessions.fit_time(by_hand.user_id) is not None
    by_hand.say()
    by_hand.turn()
    first, second = rows.sessions(by_hand.user_id)
    assert now < first.ended_at < second.started_at < now + HOUR
    assert rows.anomalies() == []


def test_the_doctor_shows_whose_time_is_ahead_and_a_command_repairs_it(
    services: Services, by_hand: ByHand, invoke: Invoke
) -> None:
    deployment = Deployment(services.settings, services.database, services.lanes)
    for user in (by_hand, ByHand(services.database)):
        user.say(datetime.now(UTC) + YEAR)
        user.turn()
    found = session_checks.time_goes_on(deployment)
    assert (found.health, len(found.details)) == (Health.FAILED, 2)
    assert "2 users is ahead of Postgres' clock, by up to 36" in found.found
    assert str(by_hand.user_id) in " ".join(found.details)
    assert "brought back by 36" in invoke("session", "fit-time", by_hand.user_id).output
    assert invoke("session", "fit-time", by_hand.user_id).output == "no times are ahead of the clock\n"
    assert len(json.loads(invoke("session", "fit-time", "--all", "--json").stdout)["fitted"]) == 1
    assert session_checks.time_goes_on(deployment).health is Health.OK
    assert invoke("session", "fit-time").exit_code != 0


def test_of_many_users_the_doctor_looks_at_some_and_the_command_at_all_page_by_page(
    rows: Rows, services: Services, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both read all of them at once, which takes longer than a statement may where there are millions."""
    monkeypatch.setattr(sample, "USERS_MAX", 10)
    monkeypatch.setattr(sessions, "USERS_PER_PAGE", 10)
    deployment = Deployment(services.settings, services.database, services.lanes)
    users = {str(rows.make_user("demo", f"user {nr}")) for nr in range(25)}
    assert session_checks.time_goes_on(deployment).found.endswith("; users looked at: 10")
    services.database.rows("UPDATE users SET last_accepted_at = clock_timestamp() + interval '1 year'")
    assert "the time of 10 users is ahead" in session_checks.time_goes_on(deployment).found
    fitted = json.loads(invoke("session", "fit-time", "--all", "--json").stdout)["fitted"]
    assert {one["user_id"] for one in fitted} == users
    assert session_checks.time_goes_on(deployment).health is Health.OK
