"""Bodies of ours, as a service would write them."""

from onelane.deliveries import Delivery, IdentityChange, Item, Kind, Status
from onelane.errors import BadRequest
from onelane.model import JsonObject


def body_of(item: Item) -> JsonObject:
    """Write an item; raise BadRequest for what has no form."""
    if isinstance(item, Delivery):
        return _line(item)
    if isinstance(item, IdentityChange):
        return {"type": "identity", **_named(item)}
    if isinstance(item, Status):
        content = item.model_dump(mode="json", exclude_none=True)
        return {"type": "status", **{"sent_at" if name == "at" else name: value for name, value in content.items()}}
    raise BadRequest("", f"this provider sends no {type(item).__name__}")


def id_of(item: Item) -> str:
    """Return what names the request: of a status, its message and its state."""
    if isinstance(item, Delivery | IdentityChange):
        return item.external_id
    return f"status-{item.provider_id}-{item.state}" if isinstance(item, Status) else ""


def _line(item: Delivery) -> JsonObject:
    content = {"text": item.text, **_named(item)}
    kind = {"type": str(item.kind)} if item.kind is Kind.ECHO else {}
    quoted = {"reply_to": content.pop("quoted")} if item.quoted else {}
    return {**kind, **content, **quoted}


def _named(item: Delivery | IdentityChange) -> JsonObject:
    """Write what is not at its default, and one name as `user`."""
    left_out = {"senders", "external_id", "kind", "raw", "repairs"}
    content = item.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
    return {**({"user": item.senders[0]} if len(item.senders) == 1 else {"senders": item.senders}), **content}
