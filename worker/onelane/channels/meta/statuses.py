"""What became of a reply."""

from typing import Any

from onelane.channels import fields
from onelane.channels.meta import people
from onelane.channels.meta.change import Change, instant, object_in
from onelane.deliveries import Status
from onelane.errors import BadRequest
from onelane.model import uuid_or_none

STATES = {"sent": "sent", "delivered": "delivered", "read": "read", "played": "read", "failed": "failed"}
"""Our word by Meta's: a voice note that was played was read."""
PARTICIPANT: people.Keys = (
    "recipient_participant_id",
    "recipient_participant_user_id",
    "recipient_participant_parent_user_id",
)
CODE_MAX = 64


class _Head(fields.Incoming):
    id: fields.ExternalId


def read(value: Any, _change: Change) -> Status:
    """Read one of a change's `statuses`."""
    status = object_in(value, "statuses")
    state = status.get("status")
    if not isinstance(state, str) or state not in STATES:
        raise BadRequest("statuses.status", f"must be {', '.join(STATES)}")
    key = status.get("biz_opaque_callback_data")
    return Status(
        provider_id=fields.checked(_Head, status).id,
        state=STATES[state],
        key=uuid_or_none(key) if isinstance(key, str) else None,
        participant=next(iter(people.names_in(status, PARTICIPANT)), None),
        at=instant(status.get("timestamp")),
        failure_code=_code(status.get("errors")),
    )


def _code(errors: Any) -> str | None:
    """Return the code of the first error."""
    error = errors[0] if isinstance(errors, list) and errors else None
    code = error.get("code") if isinstance(error, dict) else None
    return str(code)[:CODE_MAX] if isinstance(code, int) else None
