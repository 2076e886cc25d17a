"""The quarantine: verified webhooks that were not understood, kept whole until an operator replays or drops them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from psycopg.types.json import Jsonb

from onelane.channels.provider import Inbound
from onelane.errors import StoreUnavailable
from onelane.model import Value
from onelane.postgres.db import Ask, Database
from onelane.storable import storable
from onelane.telemetry.log import event

HEADERS_KEPT: Final = (
    *("user-agent", "webhook-id", "webhook-timestamp", "x-slack-request-timestamp"),
    *("x-slack-retry-num", "x-slack-retry-reason", "i-twilio-idempotency-token"),
)
"""None of them is a secret or a signature. Adapters read no others when they parse."""
HEADER_MAX: Final = 512
QUERY_MAX: Final = 8_192
REASONS_MAX: Final = 20
REASON_MAX: Final = 300
KEEP_S: Final = 2.0

LISTED = """
SELECT id, channel, received_at, reasons, content_type, octet_length(body) AS size
  FROM quarantined_payloads
"""
LIST = f"""
{LISTED} WHERE (%(channel)s::text IS NULL OR channel = %(channel)s) ORDER BY received_at, id LIMIT %(most)s
"""


class Kept(Value):
    """A kept webhook, without what it holds."""

    id: UUID
    channel: str
    received_at: datetime
    reasons: tuple[str, ...]
    content_type: str
    size: int
    """Of its body, in bytes."""


class Quarantine:
    """The kept webhooks of all channels."""

    def __init__(self, database: Database, most: int, days: int) -> None:
        """Keep at most `most` of each channel, for so many days."""
        self._database = database
        self._most = most
        self._days = days

    def keep(self, channel: str, request: Inbound, reasons: Sequence[str], within_s: float = KEEP_S) -> None:
        """Keep a request, once however often it is delivered; raise StoreUnavailable if it cannot be kept."""
        kept = {
            "channel": channel,
            "reasons": [storable(reason)[:REASON_MAX] for reason in reasons[:REASONS_MAX]],
            "content_type": storable(request.content_type)[:HEADER_MAX],
            "query": storable(_query_of(request.url))[:QUERY_MAX],
            "headers": _shown(request.headers),
        }
        row = self._database.row(
            "SELECT quarantine(%s, %s, %s, %s) AS answer",
            (Jsonb(kept), request.body, self._most, self._days),
            within_s=within_s,
        )
        answer = row.answer if row else {"id": None, "is_new": False}
        if answer["id"] is None:
            event("quarantine_full", channel=channel, most=self._most)
            raise StoreUnavailable("the quarantine of the channel is full")
        if answer["is_new"]:
            event("webhook_quarantined", channel=channel, quarantined_id=answer["id"], reasons=kept["reasons"])

    def all(self, channel: str | None, most: int) -> list[Kept]:
        """List what is kept, of one channel or all, oldest first."""
        rows = self._database.rows(LIST, {"channel": channel, "most": most})
        return [Kept(**row._asdict()) for row in rows]

    def one(self, kept_id: UUID) -> Kept | None:
        """Return one of them."""
        row = self._database.row(f"{LISTED} WHERE id = %s", (kept_id,))
        return row and Kept(**row._asdict())

    def request(self, kept_id: UUID, address: str) -> Inbound | None:
        """Return the request that was kept, as if it had been sent to `address`."""
        row = self._database.row(
            "SELECT query, headers, content_type, body FROM quarantined_payloads WHERE id = %s", (kept_id,)
        )
        if row is None:
            return None
        url = address + (f"?{row.query}" if row.query else "")
        return Inbound(url=url, headers=row.headers, content_type=row.content_type, body=bytes(row.body))

    def note(self, kept_id: UUID, reasons: Sequence[str]) -> None:
        """Replace the reasons for which one is kept."""
        bounded = [storable(reason)[:REASON_MAX] for reason in reasons[:REASONS_MAX]]
        self._database.rows("UPDATE quarantined_payloads SET reasons = %s WHERE id = %s", (Jsonb(bounded), kept_id))

    def drop(self, kept_id: UUID, *, ask: Ask | None = None) -> bool:
        """Delete one; whether it was there."""
        row = (ask or self._database.row)(
            "DELETE FROM quarantined_payloads WHERE id = %s RETURNING id AS did", (kept_id,)
        )
        return row is not None


def _query_of(url: str) -> str:
    return url.partition("?")[2]


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: storable(headers[name])[:HEADER_MAX] for name in HEADERS_KEPT if name in headers}
