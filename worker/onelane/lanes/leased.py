"""What a lease call answers."""

import json
from typing import Literal
from uuid import UUID

from onelane.model import Lease, Value, uuid_or_none


class Leased(Value):
    """The answer to a lease call."""

    leases: tuple[Lease, ...]
    next_due_s: float | None
    """Seconds until the next lane becomes due; None when no lane has a time."""
    now_ms: float
    """The lanes' clock."""
    stepped_ms: float
    """By how much Redis' clock has stepped; 0 when it has not."""


def leased(answer: str | bytes, kind: str) -> Leased:
    """Read what lease.lua returns."""
    fields = json.loads(answer)
    next_due_ms = float(fields["next_due_ms"])
    return Leased(
        leases=tuple(_lease(kind, *entry) for entry in fields["leases"]),
        next_due_s=None if next_due_ms < 0 else next_due_ms / 1000,
        now_ms=float(fields["now_ms"]),
        stepped_ms=fields["stepped_ms"],
    )


def _lease(
    kind: str, user: str, token: str, fence: str, taken_over: int, session: str | bool, lost: str | Literal[False]
) -> Lease:
    hint = uuid_or_none(session) if isinstance(session, str) else None
    return Lease(
        user_id=UUID(user),
        kind=kind,
        token=token,
        fence=int(fence),
        taken_over=bool(taken_over),
        taken_from=lost or None,
        session_hint=hint,
        hint_is_malformed=isinstance(session, str) and hint is None,
    )
