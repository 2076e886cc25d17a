"""When a session ends by policy: boundaries, clocks that change, and how late it is worked off."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo, available_timezones

import psycopg
import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.doctor.finding import Deployment, Health
from onelane.doctor.sessions import zones_agree
from onelane.errors import ConfigError
from onelane.policy import Policy
from onelane.sessions import clocks_differ, publish_policies
from tests.by_hand import ByHand
from tests.calls import Calls, delivery, lease, settlement
from tests.conftest import slow_after
from tests.policy_model import next_day_start
from tests.rows import Rows

Publish = Callable[..., str]
End = Callable[..., tuple[datetime, str]]
Verdict = Callable[[str, datetime, datetime], str | None]

IDLE_S = 25_200
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
MORNING = time(6)


@pytest.fixture
def policy(rows: Rows) -> Publish:
    """Publish a policy under a channel name of its own and return the name."""

    def publish(
        idle_s: int = IDLE_S, day_start: time | None = None, zone: str | None = None, max_age_s: int | None = None
    ) -> str:
        channel = f"policy-{uuid4()}"
        rows.publish(channel, idle_s, day_start, zone, max_age_s, IDLE_S)
        return channel

    return publish


@pytest.fixture
def end(rows: Rows) -> End:
    """Return when, and why, a session is over that was opened, and had its last message, at these times."""

    def end(channel: str, started_at: datetime, last_message_at: datetime | None = None) -> tuple[datetime, str]:
        query = "SELECT ends_at, reason FROM session_end_by_policy(%s, %s, %s)"
        row = rows.ask(query, channel, started_at, last_message_at or started_at)
        return row.ends_at, row.reason

    return end


@pytest.fixture
def verdict(rows: Rows) -> Verdict:
    """Return why a message would open a new session, or None."""

    def verdict(channel: str, last_message_at: datetime, accepted_at: datetime) -> str | None:
        query = "SELECT should_create_new_session(%s, %s, %s, %s) AS reason"
        reason: str | None = rows.ask(query, channel, last_message_at, last_message_at, accepted_at).reason
        return reason

    return verdict


def local(zone: str, year: int, month: int, day: int, *time: int) -> datetime:
    return utc(year, month, day, *time).replace(tzinfo=ZoneInfo(zone))


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


# every minute of a day


DAYS = [
    ("Europe/Paris", date(2025, 3, 30)),  # 23 hours
    ("Europe/Paris", date(2025, 10, 26)),  # 25 hours
    ("Europe/Paris", date(2025, 7, 14)),
    ("Europe/Dublin", date(2024, 10, 27)),
    ("Asia/Kolkata", date(2024, 2, 29)),
    ("Australia/Lord_Howe", date(2025, 4, 6)),  # 24½ hours
    ("America/St_Johns", date(2025, 3, 9)),
    ("Pacific/Apia", date(2011, 12, 29)),  # the next day is the 31st
]
EVERY_MINUTE = """
SELECT nr, early.reason AS early, late.reason AS late
  FROM generate_series(0, 26 * 60) AS nr,
       LATERAL (SELECT %(from)s::timestamptz + make_interval(mins => nr) AS at) minute,
       LATERAL (SELECT should_create_new_session(%(channel)s, at, at, at + interval '10 s') AS reason) early,
       LATERAL (SELECT should_create_new_session(
           %(channel)s, at + interval '55 s', at + interval '55 s', at + interval '65 s') AS reason) late
"""


@pytest.mark.parametrize(("zone", "day"), DAYS)
@pytest.mark.parametrize("day_start", slow_after(2, [time(2, 30), None, time(0), time(6), time(20, 39)]))
def test_two_messages_10_s_apart_share_a_session_at_any_minute_unless_the_day_starts_between(
    services: Services, policy: Publish, zone: str, day: date, day_start: time | None
) -> None:
    midnight = datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)
    channel = policy(day_start=day_start, zone=zone, max_age_s=86_400)
    for row in services.database.rows(EVERY_MINUTE, {"from": midnight, "channel": channel}):
        at = midnight + timedelta(minutes=row.nr)
        for sent, reason in ((at, row.early), (at + 55 * SECOND, row.late)):
            is_split = day_start is not None and next_day_start(sent, day_start, zone) <= sent + 10 * SECOND
            assert reason == ("end_of_day" if is_split else None), sent


@pytest.mark.slow
def test_messages_of_every_minute_worked_off_by_the_real_functions_share_their_sessions(
    rows: Rows, services: Services, policy: Publish
) -> None:
    """The same on the whole way: 1,440 users write twice on the day on which Paris loses an hour."""
    channel, midnight = (
        policy(day_start=MORNING, zone="Europe/Paris"),
        local("Europe/Paris", 2025, 3, 30).astimezone(UTC),
    )
    calls = Calls(services.database)
    for minutes in (range(hour * 60, hour * 60 + 60) for hour in range(24)):
        for sent in (midnight, midnight + 10 * SECOND):
            at = {nr: (sent + nr * timedelta(minutes=1)).isoformat() for nr in minutes}
            accepted = calls.accept(*(delivery(f"{nr}", at[nr], channel=channel, now=at[nr]) for nr in minutes))
        for _ in range(2):
            calls.settle(*map(settlement, calls.begin(*(lease(one["user_id"]) for one in accepted))))
    counted = rows.ask(
        "SELECT count(*) AS messages, count(DISTINCT session_id) AS sessions FROM messages WHERE state = 'processed'"
    )
    assert (counted.messages, counted.sessions) == (2_880, 1_440)
    assert rows.anomalies() == []


# boundaries


def test_the_instant_of_a_boundary_belongs_to_the_next_session(policy: Publish, verdict: Verdict) -> None:
    sent = utc(2025, 7, 14, 12)
    channel = policy(day_start=MORNING, zone="UTC", idle_s=40 * 3_600)
    morning = utc(2025, 7, 15, 6)
    assert verdict(policy(), sent, sent + 7 * HOUR - MICROSECOND) is None
    assert verdict(policy(), sent, sent + 7 * HOUR) == "timeout"
    assert verdict(channel, sent, morning - MICROSECOND) is None
    assert verdict(channel, sent, morning) == "end_of_day"
    assert verdict(channel, morning, morning + HOUR) is None
    assert verdict(channel, morning - MICROSECOND, morning) == "end_of_day"
    assert verdict(policy(max_age_s=3_600), sent, sent + HOUR - MICROSECOND) is None
    assert verdict(policy(max_age_s=3_600), sent, sent + HOUR) == "max_age"


def test_the_earliest_boundary_wins_and_of_equals_the_first_of_timeout_end_of_day_max_age(
    policy: Publish, end: End
) -> None:
    sent = utc(2025, 7, 14, 4)
    morning = utc(2025, 7, 14, 6)
    at_six = {"day_start": MORNING, "zone": "UTC"}
    assert end(policy(idle_s=7_200, **at_six, max_age_s=7_200), sent) == (morning, "timeout")
    assert end(policy(idle_s=7_201, **at_six, max_age_s=7_200), sent) == (morning, "end_of_day")
    assert end(policy(idle_s=7_201, **at_six, max_age_s=7_199), sent) == (morning - SECOND, "max_age")
    assert end(policy(idle_s=7_199, **at_six, max_age_s=7_200), sent) == (morning - SECOND, "timeout")


def test_the_incidents_evening_is_one_session_whatever_the_day_start(policy: Publish, verdict: Verdict) -> None:
    """`After 20:00, and now after 06:00` is true all evening; a day that starts at six is not over at 20:39."""
    sent = local("Europe/Paris", 2025, 11, 3, 20, 39, 6)
    channel = policy(day_start=MORNING, zone="Europe/Paris")
    assert verdict(channel, sent, sent + timedelta(milliseconds=116)) is None
    assert verdict(channel, sent, sent + 18 * SECOND) is None
    assert verdict(channel, sent, local("Europe/Paris", 2025, 11, 3, 23, 59, 59)) is None


def test_a_day_that_starts_twice_starts_at_standard_time(policy: Publish, end: End) -> None:
    channel = policy(day_start=time(2, 30), zone="Europe/Paris", idle_s=86_400)
    again = utc(2025, 10, 26, 1, 30)  # 02:30 was shown an hour before, too
    assert end(channel, local("Europe/Paris", 2025, 10, 26, 0, 0)) == (again, "end_of_day")
    assert end(channel, utc(2025, 10, 26, 0, 45)) == (again, "end_of_day")
    assert end(policy(day_start=time(2), zone="Europe/Paris"), utc(2025, 10, 25, 23, 30))[0] == utc(2025, 10, 26, 1)


def test_a_day_whose_start_is_skipped_starts_when_the_clock_jumps(policy: Publish, end: End) -> None:
    channel = policy(day_start=time(2, 30), zone="Europe/Paris")
    jump = utc(2025, 3, 30, 1)
    assert end(channel, local("Europe/Paris", 2025, 3, 30, 0, 0)) == (jump, "end_of_day")
    assert end(channel, jump)[1] == "timeout"
    lord_howe = policy(day_start=time(2, 15), zone="Australia/Lord_Howe")
    assert end(lord_howe, local("Australia/Lord_Howe", 2025, 10, 5, 1, 0)) == (utc(2025, 10, 4, 15, 30), "end_of_day")
    havana = policy(day_start=time(0), zone="America/Havana")
    assert end(havana, local("America/Havana", 2025, 3, 8, 23, 0)) == (utc(2025, 3, 9, 5), "end_of_day")


def test_a_date_that_a_country_skipped_starts_when_it_was_skipped(policy: Publish, end: End) -> None:
    apia = policy(day_start=MORNING, zone="Pacific/Apia", idle_s=864_000)
    date_line = utc(2011, 12, 30, 10)
    assert end(apia, local("Pacific/Apia", 2011, 12, 29, 7)) == (date_line, "end_of_day")
    assert end(apia, date_line) == (local("Pacific/Apia", 2011, 12, 31, 6).astimezone(UTC), "end_of_day")


def test_half_hour_zones_and_leap_days_have_mornings_like_any_other(policy: Publish, end: End) -> None:
    kolkata = policy(day_start=MORNING, zone="Asia/Kolkata", idle_s=864_000)
    assert end(kolkata, local("Asia/Kolkata", 2024, 2, 28, 6)) == (utc(2024, 2, 29, 0, 30), "end_of_day")
    assert end(kolkata, local("Asia/Kolkata", 2024, 2, 29, 6)) == (utc(2024, 3, 1, 0, 30), "end_of_day")


def test_an_idle_gap_is_hours_that_passed_not_hours_on_the_wall(policy: Publish, end: End) -> None:
    for sent in (local("Europe/Paris", 2025, 3, 29, 23), local("Europe/Paris", 2025, 10, 25, 23)):
        assert end(policy(zone="Europe/Paris"), sent) == (sent.astimezone(UTC) + 7 * HOUR, "timeout")


def test_the_time_zone_of_the_connection_does_not_matter(policy: Publish, settings: Settings) -> None:
    sent = utc(2025, 3, 29, 23, 30)
    channel = policy(day_start=time(2, 30), zone="Europe/Paris")
    with psycopg.connect(settings.database_url) as connection:
        for zone in ("Asia/Tokyo", "America/Los_Angeles", "UTC"):
            connection.execute("SELECT set_config('TimeZone', %s, false)", (zone,))
            row = connection.execute(
                "SELECT ends_at = %s, reason FROM session_end_by_policy(%s, %s, %s)",
                (utc(2025, 3, 30, 1), channel, sent, sent),
            ).fetchone()
            assert row == (True, "end_of_day")


def test_a_channel_without_a_policy_has_seven_hours(end: End) -> None:
    assert end("never configured", utc(2025, 1, 1)) == (utc(2025, 1, 1, 7), "timeout")


def test_a_day_starts_on_a_whole_minute(policy: Publish) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="a_day_starts_on_a_minute"):
        policy(day_start=time(2, 30, 0, 150_000), zone="Europe/Paris")


# how late it is worked off


@pytest.mark.parametrize("wait_for", [1, 2, 4, 99])
def test_a_backlog_makes_the_same_sessions_as_messages_worked_off_at_once(
    rows: Rows, services: Services, policy: Publish, wait_for: int
) -> None:
    by_hand = ByHand(services.database, channel=policy(max_age_s=36_000))
    evening = utc(2025, 7, 14, 20, 39, 6)
    hours = [0, 0.0001, 6.9, 9.99, 10, 16.9, 24, 31]
    for nr, hour in enumerate(hours, 1):
        by_hand.say(evening + hour * HOUR)
        if nr % wait_for == 0 or nr == len(hours):
            by_hand.work_off()
    assert rows.shape(by_hand.user_id) == [
        ([1, 2, 3, 4], "max_age"),
        ([5, 6], "max_age"),
        ([7], "timeout"),
        ([8], None),
    ]
    assert [session.started_at for session in rows.sessions(by_hand.user_id)] == [
        evening + nr * HOUR for nr in (0, 10, 24, 31)
    ]


# zones


def _is_refused(services: Services, zone: str) -> bool:
    policy = Policy(
        channel="zone",
        place="CHANNELS.zone",
        idle_timeout_s=1,
        day_start=MORNING,
        timezone=zone,
        max_age_s=None,
        escalation_timeout_s=1,
    )
    try:
        publish_policies(services.database, (policy,))
    except ConfigError as error:
        assert "CHANNELS.zone: the time zone is another one in Postgres" in str(error)  # noqa: PT017 - it may not come
        return True
    return False


@pytest.mark.parametrize("zone", ["CET", "EET", "MET", "WET"])
def test_a_time_zone_that_postgres_takes_for_an_abbreviation_is_refused(services: Services, zone: str) -> None:
    """It has no summer time there: days started an hour late for half of the year."""
    assert _is_refused(services, zone)
    assert services.database.rows("SELECT FROM channel_policies WHERE channel = 'zone'") == []


@pytest.mark.parametrize(("zone", "health"), [("CET", Health.WARNING), ("Europe/Paris", Health.OK)])
def test_the_doctor_names_a_time_zone_whose_clocks_differ(services: Services, zone: str, health: Health) -> None:
    channel = services.settings.channels["demo"].model_copy(update={"day_start": MORNING, "timezone": zone})
    settings = services.settings.model_copy(update={"channels": {"demo": channel}})
    vars(settings).pop("policies", None)  # of the settings before
    found = zones_agree(Deployment(settings, services.database, services.lanes))
    assert found.health is health
    assert bool(found.details) == (health is Health.WARNING)


@pytest.mark.slow
def test_of_all_time_zones_those_are_refused_that_are_others_in_postgres_and_the_doctor_names_older_data(
    services: Services,
) -> None:
    year = datetime.now(UTC).year
    days = [datetime(year, 1, 1, tzinfo=UTC) + nr * 24 * HOUR for nr in range(365)]
    query = "SELECT array_agg(at AT TIME ZONE %s ORDER BY at) AS shown FROM unnest(%s::timestamptz[]) at"
    for zone in sorted(available_timezones()):
        ours = [day.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for day in days]
        try:
            [row] = services.database.rows(query, (zone, days))
        except psycopg.errors.InvalidParameterValue:
            row = None
        theirs = row.shown if row else [None] * len(days)
        differing = {day.month for day, is_, other in zip(days, ours, theirs, strict=True) if is_ != other}
        assert _is_refused(services, zone) == bool({1, 7} & differing), zone
        assert (clocks_differ(services.database, zone, days) != 0) == bool(differing), zone
