"""Sessions: what a turn reads of its own, the commands that end, escalate and hand back, and the policies.

Which session a message belongs to is decided in SQL alone (`sql/functions/get_or_create_session.sql`). The id that
Redis keeps is a hint: it is deleted after every end, and when it is wrong all the same, the SQL sees it.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
from psycopg.types.json import Jsonb

from onelane import past
from onelane.errors import ConfigError, LanesUnavailable, TurnOutdated
from onelane.history import Line
from onelane.lanes.lanes import Lanes
from onelane.model import JsonObject, Message
from onelane.policy import Policy
from onelane.postgres.connection import Row
from onelane.postgres.db import Ask, Clock, Database, database_clock
from onelane.telemetry.log import event

HISTORY_MAX = 1_000
SWEEP_LOOKS_MAX = 500
SWEEP_ENDS_MAX = 32
SEEN = """
SELECT u.last_seq, u.notes, s.id AS session_id, s.status, s.escalated_at,
       (SELECT max(escalate_at) FROM inbox WHERE user_id = u.id AND seq >= u.next_seq) AS noted_at
  FROM users u LEFT JOIN conversation_sessions s ON s.user_id = u.id AND s.status <> 'ended'
 WHERE u.id = %s
"""
"""What a command is about: asked again after a lost reply it must not meet a later session or message."""
USERS_PER_PAGE = 5_000
# Each session is looked up by itself: a join would read all of them.
AHEAD = """
SELECT id, latest - clock_timestamp() AS by,
       coalesce(latest > clock_timestamp() + interval '10 s', false) AS is_ahead
  FROM (SELECT id, greatest(last_accepted_at, (SELECT max(last_message_at) FROM conversation_sessions
                                                WHERE user_id = u.id AND status <> 'ended')) AS latest
          FROM users u WHERE id > %(after)s ORDER BY id LIMIT %(most)s) _
 ORDER BY id
"""
"""Users, and whose time stands still: the clock was set back behind it. Some seconds are over before anybody acts."""
CLOCKS_DIFFER = """
SELECT count(*) AS times
  FROM unnest(%s::timestamptz[], %s::timestamp[]) clocks (instant, shown) WHERE instant AT TIME ZONE %s <> shown
"""
Escalated = UUID | Literal["noted"]
"""The escalated session, or `noted` when it opens only after messages of an earlier one, which wait."""


class Swept(NamedTuple):
    """What came of one batch."""

    ended: int
    has_more: bool
    """Whether it was full: more may be over."""


class Sessions:
    """The sessions of all users."""

    def __init__(self, database: Database, lanes: Lanes, now: Clock = database_clock) -> None:
        self._database = database
        self._lanes = lanes
        self._now = now

    def history(self, session_id: UUID, limit: int) -> list[Line]:
        """Return the last `limit` lines of one session that are part of its story, oldest first; see `past`."""
        return past.lines(self._database, session_id, max(0, min(limit, HISTORY_MAX)))

    def tool_output(self, session_id: UUID, name: str) -> Any:
        """Return the newest output saved under `name` in one session, or None."""
        row = self._database.row(
            "SELECT output FROM tool_calls WHERE session_id = %s AND name = %s ORDER BY id DESC LIMIT 1",
            (session_id, name),
        )
        return row.output if row else None

    def claim_newer(self, turn: JsonObject) -> list[Message]:
        """Take what has arrived since into a turn's batch; raise TurnOutdated when the turn may do no more."""
        answer = self._asked("SELECT claim_newer(%s) AS answer", turn)
        return [Message.model_validate(message) for message in answer["messages"]]

    def keep_step(self, step: JsonObject) -> tuple[bool, Any]:
        """Keep or ask for the result of a step; return whether there is one, and which. Raise TurnOutdated."""
        answer = self._asked("SELECT keep_step(%s) AS answer", step)
        return answer["is_known"], answer["value"]

    def _asked(self, query: str, item: JsonObject) -> JsonObject:
        row = self._database.row(query, (Jsonb(item),))
        assert row is not None  # noqa: S101 - a select without FROM answers one row
        answer: JsonObject = row.answer
        if answer["outcome"] not in {"claimed", "kept"}:
            raise TurnOutdated("what this turn read has changed since it began")
        return answer

    def is_current(self, user_id: UUID, version: int, fence: int) -> bool:
        """Whether nothing that a turn of this version may have read has changed, and no later lease has written."""
        row = self._database.row("SELECT version, is_fenced(fence, %s) FROM users WHERE id = %s", (fence, user_id))
        return row is not None and row.version == version and not row.is_fenced

    def end(
        self, user_id: UUID, session_id: UUID | None = None, *, reason: str = "operator", ask: Ask | None = None
    ) -> str | None:
        """End the user's open session; return the reason, `noted` while messages wait, or None if none is open.

        With a `session_id` end that session and no other: None when another is open by now, or none. `ask`, here and
        below, runs the statement in place of `Database.row`, to write down who asked for it.
        """
        seen = self._seen(user_id, session_id)
        if seen is None:
            return None
        row = (ask or self._database.row)(
            "SELECT request_session_end(%s, %s, %s, %s, %s) AS did",
            (user_id, reason, seen.session_id, seen.last_seq, self._now()),
        )
        did: str | None = row.did if row else None
        if did == "noted":
            return did  # the turn that carries it out forgets the id
        self._forget(user_id)  # also when none was open: the answer to the call that ended it may have been lost
        return did

    def escalate(self, user_id: UUID, session_id: UUID | None = None, *, ask: Ask | None = None) -> Escalated | None:
        """Hand the user's open session to a human; return it, or None when none is open.

        With a `session_id` it is that session or none.
        """
        seen = self._seen(user_id, session_id)
        if seen is None:
            return None
        row = (ask or self._database.row)(
            "SELECT escalate_session(%s, %s, %s, %s, %s, %s) AS did",
            (user_id, self._now(), seen.session_id, seen.escalated_at, seen.last_seq, seen.notes),
        )
        self._forget(user_id)
        return _escalated(row)

    def hand_back(self, user_id: UUID, session_id: UUID | None = None, *, ask: Ask | None = None) -> Escalated | None:
        """Give an escalated session back to the bot; return it, or None when none was escalated.

        With a `session_id` it is that session or none.
        """
        seen = self._seen(user_id, session_id)
        if seen is None or (seen.status != "escalated" and seen.noted_at is None):
            return None
        escalated = (seen.session_id, seen.escalated_at) if seen.status == "escalated" else (None, None)
        row = (ask or self._database.row)(
            "SELECT hand_back_session(%s, %s, %s, %s) AS did", (user_id, *escalated, seen.noted_at)
        )
        return _escalated(row)

    def fit_time(self, user_id: UUID, *, ask: Ask | None = None) -> timedelta | None:
        """Bring a user's times back to the clock; return by how much they were ahead, or None when they were not."""
        row = (ask or self._database.row)("SELECT fit_time(%s, %s) AS did", (user_id, self._now()))
        self._forget(user_id)
        by: timedelta | None = row.did if row else None
        return by

    def sweep(self) -> Swept:
        """End sessions whose time is over, one bounded batch."""
        row = self._database.row(
            "SELECT * FROM sweep_sessions(%s, %s, %s)", (SWEEP_LOOKS_MAX, SWEEP_ENDS_MAX, self._now())
        )
        assert row is not None  # noqa: S101 - the function answers one row
        for user_id in row.ended_users:
            self._forget(user_id)
        ended = len(row.ended_users)
        return Swept(ended, has_more=ended == SWEEP_ENDS_MAX or row.seen == SWEEP_LOOKS_MAX)

    def _seen(self, user_id: UUID, session_id: UUID | None) -> Row | None:
        """Read what a command is about; None when there is no such user, or another session than the named is open."""
        seen = self._database.row(SEEN, (user_id,))
        return seen if seen is not None and session_id in {None, seen.session_id} else None

    def _forget(self, user_id: UUID) -> None:
        """Delete the cached id; with Redis away the SQL finds it wrong later."""
        try:
            self._lanes.forget_session(user_id)
        except LanesUnavailable:
            event("cache_not_cleared", user_id=user_id)


def _escalated(row: Row | None) -> Escalated | None:
    if row is None or row.did is None:
        return None
    return "noted" if row.did == "noted" else UUID(row.did)


def users_ahead(database: Database) -> Iterator[UUID]:
    """Walk over all users, page by page, and yield those whose time is ahead of the clock."""
    after = UUID(int=0)
    while rows := database.rows(AHEAD, {"after": after, "most": USERS_PER_PAGE}):
        yield from (row.id for row in rows if row.is_ahead)
        after = rows[-1].id


def publish_policies(database: Database, policies: Iterable[Policy]) -> None:
    """Write the channels' session policies to where the SQL functions read them.

    Raises ConfigError for a time zone that Postgres does not know, or takes for an offset, as it does with CET: its
    clocks differ in January or July.
    """
    year = datetime.now(UTC).year
    seasons = [datetime(year, month, 1, tzinfo=UTC) for month in (1, 7)]
    for policy in policies:
        if policy.timezone is not None and clocks_differ(database, policy.timezone, seasons) != 0:
            raise ConfigError(
                f"{policy.place}: the time zone is another one in Postgres, such as an abbreviation without"
                " summer time: name a place instead, for example Europe/Paris"
            )
        database.rows("SELECT publish_policy(%s)", (Jsonb(policy.model_dump(mode="json")),))


def clocks_differ(database: Database, zone: str, instants: list[datetime]) -> int | None:
    """Count the instants at which Postgres shows another time in a zone than Python; None: it knows no such zone."""
    shown = [instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for instant in instants]
    try:
        row = database.row(CLOCKS_DIFFER, (instants, shown, zone))
    except psycopg.errors.InvalidParameterValue:
        return None
    return row.times if row else None
