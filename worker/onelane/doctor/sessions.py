"""Checks of the sessions: one open session for each user, the same for every caller, and no anomalies lately."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Barrier
from uuid import UUID, uuid4

import psycopg

from onelane.doctor import sample
from onelane.doctor.finding import Deployment, Finding, failed, ok, warning
from onelane.errors import StoreUnavailable
from onelane.operations.anomalies import within
from onelane.postgres.db import Database
from onelane.sessions import AHEAD, clocks_differ

SCRATCH_CHANNEL = ".doctor"
"""No configured channel can have this name."""
AT_ONCE = 20
SHOWN_MAX = 20
YEAR_DAYS = 365
WINDOWS = ("24 hours", "1 hour", "5 minutes")
"""How far back to look; a shorter window is tried when a query takes too long."""
WINDOW_MAX_S = 4.0

SEVERAL_OPEN = """
SELECT user_id, array_agg(id ORDER BY started_at) AS sessions
  FROM conversation_sessions WHERE status <> 'ended'
 GROUP BY user_id HAVING count(*) > 1 ORDER BY user_id LIMIT %s
"""
# A day start is a whole minute, so none lies between a minute's fifth second and its fifteenth.
TEN_SECONDS = """
SELECT channel, count(*) AS minutes, to_char(min(t), 'HH24:MI') AS first, to_char(max(t), 'HH24:MI') AS last
  FROM (SELECT channel FROM channel_policies UNION SELECT %(scratch)s ORDER BY channel LIMIT 20) channels
 CROSS JOIN LATERAL policy_of(channel) p (name, idle_timeout_s, day_start, timezone, max_age_s, escalation_timeout_s)
 CROSS JOIN generate_series(date_trunc('day', now()) + interval '5 s',
                            date_trunc('day', now()) + interval '1 day', interval '1 minute') t
 WHERE p.idle_timeout_s > 10 AND coalesce(p.max_age_s, 11) > 10
   AND should_create_new_session(channel, t, t, t + interval '10 s') IS NOT NULL
 GROUP BY channel ORDER BY channel
"""
REUSE = """
SELECT round(avg(turns), 1) AS turns FROM (
    SELECT turns FROM session_reuse WHERE at > clock_timestamp() - %s::interval ORDER BY at DESC LIMIT 10000) _
"""


def one_session_each(deployment: Deployment) -> Finding:
    """Check that no user has two open sessions."""
    rows = deployment.database.rows(SEVERAL_OPEN, (SHOWN_MAX,))
    if not rows:
        return ok("no user has two open sessions")
    return failed(
        f"{'at least ' if len(rows) == SHOWN_MAX else ''}{len(rows)} users have several open sessions",
        "end all but the newest: SELECT end_session(id, last_message_at, 'operator'); then see the check `tables`",
        tuple(f"user {row.user_id}: sessions {', '.join(map(str, row.sessions))}" for row in rows),
    )


def resolves_to_one(deployment: Deployment) -> Finding:
    """Check that all who ask for a user's session get the same one, in turn and at once."""
    _remove(deployment.database, "created_at < clock_timestamp() - interval '1 minute'", ())
    with _scratch_user(deployment.database) as user_id:
        in_turn = {_resolve(deployment.database, user_id) for _ in range(2)}
    with _scratch_user(deployment.database) as user_id, ThreadPoolExecutor(AT_ONCE) as pool:
        start = Barrier(AT_ONCE, timeout=10)
        at_once = set(pool.map(lambda _: _resolve(deployment.database, user_id, start), range(AT_ONCE)))
    if errors := sorted(str(one) for one in in_turn | at_once if not isinstance(one, UUID)):
        return failed(
            f"get_or_create_session fails: {', '.join(errors)}",
            "see the checks `functions` and `tables`: something has been replaced",
        )
    if len(in_turn) == len(at_once) == 1:
        return ok(f"get_or_create_session gives one id, twice in turn and {AT_ONCE} times at once")
    return failed(
        f"get_or_create_session gives {len(in_turn)} ids twice in turn, {len(at_once)} ids {AT_ONCE} times at once",
        "see the checks `functions` and `tables`: something has been replaced",
    )


def ten_seconds_apart(deployment: Deployment) -> Finding:
    """Check that two messages ten seconds apart share a session at every minute of the day."""
    rows = deployment.database.rows(TEN_SECONDS, {"scratch": SCRATCH_CHANNEL})
    if not rows:
        return ok("two messages ten seconds apart share a session at every minute of the day")
    return failed(
        f"should_create_new_session separates messages ten seconds apart in {rows[0].minutes} minutes of the day",
        "see the check `functions`: the rule has been replaced",
        tuple(f"channel {row.channel}: {row.minutes} minutes, from {row.first} to {row.last}" for row in rows),
    )


def time_goes_on(deployment: Deployment) -> Finding:
    """Check that no user's time is ahead of Postgres' clock: it stands still until the clock has caught up."""
    database = deployment.database
    users = sample.read_from(database, AHEAD, sample.anywhere(database), sample.USERS_MAX)
    ahead = sorted((user for user in users.values() if user.is_ahead), key=lambda user: user.by, reverse=True)
    if not ahead:
        return ok(f"no user's time is ahead of Postgres' clock; users looked at: {len(users)}")
    return failed(
        f"the time of {len(ahead)} users is ahead of Postgres' clock, by up to {ahead[0].by}: it stands still"
        f" (users looked at: {len(users)})",
        "see that the clock is right, then: onelane session fit-time --all",
        tuple(f"user {user.id}: ahead by {user.by}" for user in ahead[:SHOWN_MAX]),
    )


def zones_agree(deployment: Deployment) -> Finding:
    """Check that Postgres and Python know the same rules of the channels' time zones for the year to come."""
    days = [datetime.now(UTC) + timedelta(days=nr) for nr in range(YEAR_DAYS)]
    zones = sorted({policy.timezone for policy in deployment.settings.policies if policy.timezone is not None})
    differing = {zone: clocks_differ(deployment.database, zone, days) for zone in zones}
    details = tuple(
        f"{zone}: {'unknown to Postgres' if times is None else f'on {times} of the next {YEAR_DAYS} days'}"
        for zone, times in differing.items()
        if times != 0
    )
    if not details:
        return ok("Postgres and Python agree about the channels' time zones")
    return warning(
        f"Postgres and Python disagree about {len(details)} time zones: days may start an hour too early or late",
        "bring the older time zone data up to date; days start by that of Postgres",
        details,
    )


def anomalies(deployment: Deployment) -> Finding:
    """Check that the view of anomalies is empty for the last day, or for a shorter time when the day is too large."""
    for window in WINDOWS:
        try:
            return _anomalies_within(deployment.database, window)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, psycopg.errors.QueryCanceled):
                raise
    return warning("too many rows to check even the last minutes", "SELECT * FROM session_anomalies on a replica")


def _anomalies_within(database: Database, window: str) -> Finding:
    rows = within(database, window, WINDOW_MAX_S, SHOWN_MAX)
    with database.transaction() as connection:
        connection.execute(f"SET LOCAL statement_timeout = {int(WINDOW_MAX_S * 1000)}")
        reuse = connection.execute(REUSE, (window,)).fetchone()
    if not rows:
        turns = f"; {reuse.turns} messages a session" if reuse and reuse.turns else ""
        return ok(f"none within the last {window}{turns}")
    kinds = sorted({row.kind for row in rows})
    return failed(
        f"{rows[0].total} within the last {window}: {', '.join(kinds)}",
        "look at each: onelane session show USER",
        tuple(
            f"{row.at:%Y-%m-%d %H:%M:%S%z} {row.kind}: user {row.user_id}, session {row.session_id or 'none'}"
            + (f", {row.detail}" if row.detail else "")
            for row in rows
        ),
    )


def _resolve(database: Database, user_id: UUID, start: Barrier | None = None) -> UUID | str:
    """Return the user's session, or the name of the error."""
    if start is not None:
        start.wait()
    try:
        row = database.row("SELECT get_or_create_session(%s) AS id", (user_id,))
    except psycopg.IntegrityError as error:
        return type(error).__name__
    return UUID(str(row.id)) if row else "nothing"


@contextmanager
def _scratch_user(database: Database) -> Iterator[UUID]:
    """Make a user for the block's time. One that a killed doctor has left is removed by the next."""
    [row] = database.rows(
        "INSERT INTO users (channel, sender) VALUES (%s, %s) RETURNING id", (SCRATCH_CHANNEL, uuid4().hex)
    )
    user_id = UUID(str(row.id))
    try:
        yield user_id
    finally:
        _remove(database, "id = %s", (user_id,))


def _remove(database: Database, which: str, params: tuple[object, ...]) -> None:
    """Remove scratch users with their sessions, in the order in which everybody locks."""
    with database.transaction() as connection:
        query = f"SELECT id FROM users WHERE channel = %s AND {which} FOR NO KEY UPDATE"  # noqa: S608 - constants of ours
        users = [row.id for row in connection.execute(query, (SCRATCH_CHANNEL, *params)).fetchall()]
        connection.execute("DELETE FROM conversation_sessions WHERE user_id = ANY(%s)", (users,))
        connection.execute("DELETE FROM users WHERE id = ANY(%s)", (users,))
