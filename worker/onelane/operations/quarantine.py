"""What an operator does with webhooks that were not understood: they are read again, or dropped."""

from collections.abc import Mapping
from uuid import UUID

from onelane.config import Channel
from onelane.deliveries import Accepted
from onelane.inbox.quarantine import Quarantine
from onelane.inbox.receiving import Receiving
from onelane.model import Value
from onelane.operations.audit import Entry, record
from onelane.postgres.db import Database
from onelane.telemetry.log import event


class Replayed(Value):
    """What became of a webhook that was read again."""

    id: UUID
    accepted: int
    """Lines that stand since now."""
    duplicates: int
    """Lines that stood before."""
    reasons: tuple[str, ...]
    """Why it is in quarantine still; empty: it has left."""


class NotConfigured(Value):
    """That the channel of a kept webhook is not configured any more."""

    id: UUID
    channel: str


def replay(
    kept_id: UUID,
    database: Database,
    quarantine: Quarantine,
    receiving: Receiving,
    channels: Mapping[str, Channel],
    *,
    by: str,
) -> Replayed | NotConfigured | None:
    """Let today's adapter read a kept webhook, and accept what it understands; None if it is not kept.

    Its signature was verified as it came. It leaves quarantine once nothing of it is quarantined; until then it may be
    replayed again: what stands is a duplicate. Raises as `Receiving.receive`; it then stays.
    """
    kept = quarantine.one(kept_id)
    if kept is None:
        return None
    if kept.channel not in channels:
        return NotConfigured(id=kept_id, channel=kept.channel)
    request = quarantine.request(kept_id, f"{channels[kept.channel].public_url or ''}/webhooks/{kept.channel}")
    if request is None:
        return None
    stands: list[Accepted] = []
    reasons = receiving.again(kept.channel, request, stands.append)
    if reasons:
        quarantine.note(kept_id, reasons)
    else:
        quarantine.drop(kept_id)
    new = sum(not one.duplicate for one in stands)
    record(database, by, "quarantine_replayed", kept.channel, {"quarantined_id": kept_id, "accepted": new})
    event("quarantine_replayed", channel=kept.channel, quarantined_id=kept_id, accepted=new, reasons=reasons)
    return Replayed(id=kept_id, accepted=new, duplicates=len(stands) - new, reasons=tuple(reasons))


def drop(kept_id: UUID, database: Database, quarantine: Quarantine, *, by: str) -> bool:
    """Delete a kept webhook for good; whether it was there."""
    kept = quarantine.one(kept_id)
    entry = Entry(database, by, "quarantine_dropped", kept and kept.channel, {"quarantined_id": kept_id})
    did = quarantine.drop(kept_id, ask=entry.row)
    if did:
        event("quarantine_dropped", quarantined_id=kept_id)
    return did
