"""That somebody is called differently from now on, or that somebody else has their number."""

from typing import Any

from onelane.channels import fields
from onelane.channels.bodies import repaired
from onelane.channels.meta import people, preferences
from onelane.channels.meta.change import Change, instant, made_id, object_in
from onelane.deliveries import Delivery, IdentityChange, Kind
from onelane.errors import BadRequest
from onelane.model import JsonObject

NUMBER_CHANGED = frozenset({"user_changed_number", "customer_changed_number"})
ID_CHANGED = "user_changed_user_id"
OWNER_CHANGED = "customer_identity_changed"
PREFERENCE_CHANGED = "user_preference_changed"
WHAT_MAX = 64


class _Head(fields.Incoming):
    id: fields.ExternalId


def system(message: JsonObject, change: Change) -> Delivery | IdentityChange:
    """Read a message of WhatsApp's own about a user."""
    external_id = fields.checked(_Head, message).id
    notice = object_in(message.get("system"), "system")
    # Older webhooks name the person in the notice, and have the new number under another key.
    person = change.person({"from": notice.get("customer"), **message}, people.WRITER)
    what = notice["type"] if isinstance(notice.get("type"), str) else None
    now = people.names_in({"wa_id": notice.get("new_wa_id"), **notice}, people.CONTACT)
    if what in NUMBER_CHANGED:
        return _changed(person, now, external_id, message, change, drops_phone=True)
    if what == ID_CHANGED:
        return _changed(person, now, external_id, message, change)
    if what == OWNER_CHANGED:
        return _new_owner(person, external_id, message)
    if what == PREFERENCE_CHANGED:
        return preferences.opting(notice.get("marketing"), person, external_id, message, change)
    return _service(what, person, external_id, message, change)


def update(value: Any, change: Change) -> IdentityChange:
    """Read one of a change's `user_id_update`: the scoped id that a person had, and the one that they have."""
    found = object_in(value, "user_id_update")
    previous, current = (
        {key: _side(found, key, side) for key in people.CONTACT[1:]} for side in ("previous", "current")
    )
    before = people.names_in({"wa_id": found.get("wa_id"), **previous}, people.CONTACT)
    if not any(before):
        raise BadRequest("user_id_update.user_id.previous", "is missing, and wa_id too")
    person = people.Person(before, tuple(before), None)
    external_id = made_id("user_id_update", found)
    return _changed(person, people.names_in(current, people.CONTACT), external_id, found, change)


def _side(found: JsonObject, key: str, side: str) -> Any:
    pair = found.get(key)
    return pair.get(side) if isinstance(pair, dict) else None


def _changed(
    person: people.Person,
    now: people.Names,
    external_id: str,
    raw: JsonObject,
    change: Change,
    *,
    drops_phone: bool = False,
) -> IdentityChange:
    """Link the old names and the new ones. Of the old ones only a number gets another owner in time."""
    if not any(now):
        raise BadRequest("system", "must have a new number or a new id")
    before = person.names
    stale = before.phone if drops_phone and before.phone != now.phone else None
    newest = people.Names(now.phone or (None if stale else before.phone), now.scoped or before.scoped)
    return IdentityChange(
        senders=person.senders,
        adds=tuple(name for name in now if name not in person.senders),
        drops=(stale,) if stale else (),
        external_id=external_id,
        route=people.Person(newest, (), None).route(change.phone_number_id) or None,
        **_kept(raw),
    )


def _new_owner(person: people.Person, external_id: str, message: JsonObject) -> IdentityChange:
    return IdentityChange(senders=person.senders, external_id=external_id, has_new_owner=True, **_kept(message))


def _service(what: Any, person: people.Person, external_id: str, message: JsonObject, change: Change) -> Delivery:
    known = what if isinstance(what, str) and what.isidentifier() and len(what) <= WHAT_MAX else "unknown"
    return Delivery(
        senders=person.senders,
        external_id=external_id,
        kind=Kind.EVENT,
        event="service",
        parts={"service": {"what": known}},
        author=person.author,
        route=person.route(change.phone_number_id) or None,
        **_kept(message),
    )


def _kept(raw: JsonObject) -> dict[str, Any]:
    mended, _ = repaired(raw)
    return {"raw": fields.bounded(mended), "sent_at": instant(raw.get("timestamp"))}
