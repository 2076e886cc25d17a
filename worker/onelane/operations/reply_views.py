"""Replies as an operator sees them: how many wait, which channels are broken, and each with what became of it.

Replies that wait lie in a small table, and those that were given up have an index. Of all others the newest are looked
at, or one user's.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from onelane.model import JsonObject, Value
from onelane.postgres.db import Database

COUNT_MAX: Final = 100_000
LOOKED_AT_MAX: Final = 100_000
UUID_TIME_BITS: Final = 80

WAITING: Final = """
SELECT state, count(*) AS replies FROM (SELECT state FROM outbox LIMIT %(most)s) _ GROUP BY state
UNION ALL
SELECT 'given_up', count(*)
  FROM (SELECT FROM messages WHERE given_up_at IS NOT NULL AND state = 'unknown' LIMIT %(most)s) _
"""
OLDEST: Final = "SELECT id, clock_timestamp() AS now FROM outbox ORDER BY id LIMIT 1"
"""Ids are in the order of time."""
HELD: Final = """
SELECT channel, broken_at, word, code, probe_at, greatest(not_before, clock_timestamp()) AS not_before
  FROM channel_holds
 WHERE broken_at IS NOT NULL OR not_before > clock_timestamp()
 ORDER BY channel
"""
COLUMNS: Final = """
SELECT m.id AS reply_id, m.user_id, m.session_id, m.turn_seq AS seq, m.ordinal, m.channel,
       CASE WHEN o.id IS NOT NULL THEN o.state WHEN m.state = 'unknown' THEN 'given_up' ELSE m.state END AS state,
       coalesce(o.requests, m.send_attempts) AS requests, coalesce(o.failure, m.failure) AS failure,
       coalesce(o.failure_code, m.failure_code) AS failure_code, m.provider_id, m.processed_at AS committed_at,
       o.sending_at, o.not_before, o.unknown_since, coalesce(o.resent, false) AS resent, m.sent_at, m.delivered_at,
       m.read_at, m.failed_at, m.given_up_at, m.duplicated_at
"""
IN_OUTBOX: Final = f"""
{COLUMNS} FROM outbox o JOIN messages m ON m.id = o.id WHERE o.state = %(state)s OR %(state)s::text IS NULL
 ORDER BY o.id LIMIT %(most)s
"""
GIVEN_UP: Final = f"""
{COLUMNS} FROM messages m LEFT JOIN outbox o ON o.id = m.id
 WHERE m.given_up_at IS NOT NULL AND m.state = 'unknown' ORDER BY m.id DESC LIMIT %(most)s
"""
NEWEST: Final = f"""
{COLUMNS}
  FROM (SELECT * FROM messages WHERE direction = 'out' ORDER BY id DESC LIMIT %(looked_at)s) m
  LEFT JOIN outbox o ON o.id = m.id
 WHERE %(state)s::text IS NULL
    OR CASE WHEN o.id IS NOT NULL THEN o.state WHEN m.state = 'unknown' THEN 'given_up' ELSE m.state END = %(state)s
 ORDER BY m.id DESC LIMIT %(most)s
"""  # noqa: S608 - a constant of ours
OF_USER: Final = NEWEST.replace(
    "WHERE direction = 'out' ORDER BY id", "WHERE direction = 'out' AND user_id = %(user_id)s ORDER BY turn_seq"
)
ONE: Final = f"{COLUMNS} FROM messages m LEFT JOIN outbox o ON o.id = m.id WHERE m.id = %s AND m.direction = 'out'"
CONTENT: Final = "SELECT text, attachments, parts, quoted FROM messages WHERE id = %s AND direction = 'out'"


class ReplyState(StrEnum):
    """What becomes of a reply; the first three wait."""

    PENDING = "pending"
    SENDING = "sending"
    UNKNOWN = "unknown"
    GIVEN_UP = "given_up"
    """Nobody knows whether it arrived, and nobody asks any more."""
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    WITHHELD = "withheld"
    DROPPED = "dropped"


IN_THE_OUTBOX: Final = (ReplyState.PENDING, ReplyState.SENDING, ReplyState.UNKNOWN)


class Held(Value):
    """A channel that sends nothing."""

    channel: str
    broken_at: datetime | None
    """Since when its provider refuses everything; None: its account's limit is reached."""
    word: str | None
    code: str | None
    until: datetime | None
    """When one reply is tried."""


class Overview(Value):
    """What waits to be sent, in numbers; each up to COUNT_MAX."""

    pending: int = 0
    sending: int = 0
    unknown: int = 0
    given_up: int = 0
    oldest_wait_s: float = 0
    held: tuple[Held, ...] = ()

    @property
    def broken(self) -> tuple[Held, ...]:
        """The channels whose provider refuses everything."""
        return tuple(one for one in self.held if one.broken_at is not None)


class ReplyRecord(Value):
    """A reply, without what it says."""

    reply_id: UUID
    user_id: UUID
    session_id: UUID | None
    seq: int
    """Of the message that it answers."""
    ordinal: int
    channel: str
    state: ReplyState
    requests: int
    """How often it was sent."""
    failure: str | None
    """Our word for what its provider answered last."""
    failure_code: str | None
    provider_id: str | None
    committed_at: datetime
    sending_at: datetime | None
    not_before: datetime | None
    unknown_since: datetime | None
    resent: bool
    """That it was sent again without anybody knowing what came of it."""
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None
    given_up_at: datetime | None
    duplicated_at: datetime | None

    @property
    def why(self) -> str:
        """Our word and the provider's code."""
        return " ".join(filter(None, (self.failure, self.failure_code and f"({self.failure_code})")))


def overview(database: Database, within_s: float | None = None) -> Overview:
    """Count what waits and what was given up, and name the channels that send nothing; each question `within_s`."""
    counted = {row.state: row.replies for row in database.rows(WAITING, {"most": COUNT_MAX}, within_s=within_s)}
    oldest = database.row(OLDEST, within_s=within_s)
    return Overview(
        **counted,
        oldest_wait_s=_age_s(oldest.id, oldest.now) if oldest else 0,
        held=tuple(_held(row) for row in database.rows(HELD, within_s=within_s)),
    )


def replies(
    database: Database,
    *,
    user_id: UUID | None = None,
    state: ReplyState | None = None,
    most: int,
    looked_at: int = LOOKED_AT_MAX,
) -> list[ReplyRecord]:
    """List replies: a user's newest first; without a user those that wait, oldest first; or those in a state.

    Of states that neither wait nor are given up, the newest `looked_at` replies of all are looked at.
    """
    what = {"user_id": user_id, "state": state and str(state), "most": most, "looked_at": looked_at}
    query = _query(user_id, state)
    found = [ReplyRecord(**row._asdict()) for row in database.rows(query, what)]
    # Ids are in order by the millisecond.
    return sorted(found, key=lambda one: one.committed_at, reverse=query != IN_OUTBOX)


def reply(database: Database, reply_id: UUID) -> ReplyRecord | None:
    """Find a reply."""
    row = database.row(ONE, (reply_id,))
    return row and ReplyRecord(**row._asdict())


def content(database: Database, reply_id: UUID) -> JsonObject:
    """Read what a reply says."""
    row = database.row(CONTENT, (reply_id,))
    return {name: value for name, value in row._asdict().items() if value} if row else {}


def _query(user_id: UUID | None, state: ReplyState | None) -> str:
    if user_id is not None:
        return OF_USER
    if state is None or state in IN_THE_OUTBOX:
        return IN_OUTBOX
    return GIVEN_UP if state is ReplyState.GIVEN_UP else NEWEST


def _held(row: Any) -> Held:
    until = row.probe_at if row.broken_at is not None else row.not_before
    return Held(channel=row.channel, broken_at=row.broken_at, word=row.word, code=row.code, until=until)


def _age_s(reply_id: UUID, now: datetime) -> float:
    made_at = datetime.fromtimestamp((reply_id.int >> UUID_TIME_BITS) / 1000, UTC)
    return max(0.0, (now - made_at).total_seconds())
