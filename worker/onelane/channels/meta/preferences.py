"""That somebody wants no marketing messages any more, or wants them again."""

from typing import Any

from onelane.channels import fields
from onelane.channels.meta import people
from onelane.channels.meta.change import Change, instant, made_id, object_in
from onelane.deliveries import Delivery, Kind
from onelane.errors import BadRequest
from onelane.model import JsonObject

EVENTS = {"stop": "opted_out", "resume": "opted_in"}
MARKETING = "marketing_messages"


def read(value: Any, change: Change) -> Delivery:
    """Read one of a change's `user_preferences`."""
    preference = object_in(value, "user_preferences")
    if preference.get("category") != MARKETING:
        raise BadRequest("user_preferences.category", f"must be {MARKETING}")
    person = change.person(preference, people.CONTACT)
    return opting(preference.get("value"), person, made_id("user_preferences", preference), preference, change)


def opting(wish: Any, person: people.Person, external_id: str, raw: JsonObject, change: Change) -> Delivery:
    """Make the event of somebody's wish: `stop` or `resume`."""
    if not isinstance(wish, str) or wish not in EVENTS:
        raise BadRequest("user_preferences.value", f"must be {' or '.join(EVENTS)}")
    return Delivery(
        senders=person.senders,
        external_id=external_id,
        kind=Kind.EVENT,
        event=EVENTS[wish],
        author=person.author,
        route=person.route(change.phone_number_id) or None,
        raw=fields.bounded(raw),
        sent_at=instant(raw.get("timestamp")),
    )
