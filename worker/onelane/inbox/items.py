"""Items of the SQL function `accept`, made of what an adapter understood."""

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from onelane.deliveries import Delivery, IdentityChange, Kind
from onelane.errors import describe
from onelane.model import JsonObject
from onelane.telemetry.log import event

Line = Delivery | IdentityChange
"""What takes a number of a user's order."""

IDENTITY: Final = "identity"
IDENTITY_CHANGED: Final = "identity_changed"
"""The event that an identity change is in history."""
VARYING: Final = frozenset({"senders", "external_id", "mentioned", "raw", "route", "repairs", "sent_at"})
"""What may differ when a provider delivers the same again: how it names a user, its envelope, a mention."""
HASH_BYTES: Final = 8
NOBODY: Final = ""
"""Whose a line is that names nobody, by a bug of its adapter's: Postgres refuses it alone."""


def item_of(line: Line) -> JsonObject:
    """Make the item of accept that a delivery or an identity change is, without what it leaves out."""
    item = line.model_dump(mode="json", exclude_defaults=True)
    if isinstance(line, IdentityChange):
        item |= {"kind": Kind.EVENT, "event": IDENTITY_CHANGED}
    if item.pop("is_ours", False):
        item["on_echo"] = "note"
    return {**item, "content_hash": content_hash(item)}


def item_or_none(line: Line) -> JsonObject | None:
    """Make it, or None of a line that cannot be written as JSON: a bug of its adapter's, which fails no other line."""
    try:
        return item_of(line)
    except Exception as error:  # noqa: BLE001 - whatever its parts raise, its provider delivers the same again
        event("adapter_failed", failure=describe(error))
        return None


def content_hash(item: JsonObject) -> int:
    """Return a number for what the provider says, whatever changes from one delivery of it to the next."""
    content = {name: value for name, value in item.items() if name not in VARYING}
    digest = sha256(json.dumps(content, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:HASH_BYTES], signed=True)


def kind_of(item: JsonObject) -> str:
    """Name what an item is: message, event, echo or identity."""
    return IDENTITY if item.get("event") == IDENTITY_CHANGED else str(item.get("kind", Kind.MESSAGE))


def whose(items: Sequence[JsonObject]) -> list[str]:
    """Name the user of each item, alike for all that share an identifier, also by way of others: their order counts."""
    users: dict[str, str] = {}
    for item in items:
        names = list(_names(item))
        known = list(dict.fromkeys(users[name] for name in names if name in users)) or names[:1]
        if len(known) > 1:
            users = {name: known[0] if user in known else user for name, user in users.items()}
        users |= dict.fromkeys(names, known[0])
    return [users[next(iter(_names(item)))] for item in items]


def _names(item: JsonObject) -> Iterable[str]:
    named = [item["conversation"]] if item.get("conversation") else [*item["senders"], *item.get("adds", ())]
    return named or [NOBODY]
