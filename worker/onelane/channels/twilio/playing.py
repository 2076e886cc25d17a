"""Forms as Twilio would post them: what `onelane send` sends."""

from hashlib import sha256

from onelane.channels.provider import Persona
from onelane.deliveries import Delivery, Item, Kind, Status
from onelane.errors import BadRequest

WHATSAPP = "whatsapp:"
OUR_NUMBER = "whatsapp:+15550100"
OPT_OUTS = {"opted_out": "STOP", "opted_in": "START"}


def persona(name: str) -> Persona:
    """Take an address as it is, and make a WhatsApp number of another name: the same one every time."""
    if name.startswith("+") or ":" in name:
        return Persona((name,))
    digits = int.from_bytes(sha256(name.encode(errors="surrogateescape")).digest()[:8]) % 10**10
    return Persona((f"{WHATSAPP}+1555{digits:010}",), route={"from": OUR_NUMBER})


def query_of(item: Item) -> str:
    """Return what our reply had in the address for its statuses."""
    return f"?reply={item.key}" if isinstance(item, Status) and item.key else ""


def form_of(item: Item) -> dict[str, str]:
    """Write a message, an opt-out or a status; raise BadRequest for what Twilio never sends."""
    if isinstance(item, Status):
        return _status(item)
    if isinstance(item, Delivery):
        return _message(item) | _opt_out(item)
    raise BadRequest("", f"Twilio sends no {type(item).__name__}")


def _status(status: Status) -> dict[str, str]:
    given = {"MessageSid": status.provider_id, "MessageStatus": status.state, "ErrorCode": status.failure_code or ""}
    return {name: value for name, value in given.items() if value}


def _opt_out(delivery: Delivery) -> dict[str, str]:
    if delivery.kind is Kind.MESSAGE:
        return {}
    if delivery.event not in OPT_OUTS:
        raise BadRequest("event", f"Twilio sends no {delivery.event or delivery.kind}")
    return {"OptOutType": OPT_OUTS[delivery.event]}


def _message(delivery: Delivery) -> dict[str, str]:
    sender, *others = delivery.senders
    location = delivery.parts.get("location", {})
    author = delivery.author.name if delivery.author else None
    given = {
        "MessageSid": delivery.external_id,
        "From": sender,
        "To": (delivery.route or {}).get("from"),
        "ProfileName": author,
        "ButtonPayload": delivery.button,
        "ButtonText": delivery.text if delivery.button else None,
        "ExternalUserId": others[0] if others else None,
        "Latitude": location.get("latitude"),
        "Longitude": location.get("longitude"),
        "Label": location.get("name"),
        "Address": location.get("address"),
        "Forwarded": "true" if delivery.parts.get("forwarded") else None,
        "OriginalRepliedMessageSid": delivery.quoted,
    }
    form = {name: str(value) for name, value in given.items() if value is not None}
    for number, media in enumerate(delivery.attachments):
        form |= {f"MediaUrl{number}": media.url or "", f"MediaContentType{number}": media.content_type or ""}
    return form | {"Body": delivery.text, "NumMedia": str(len(delivery.attachments))}
