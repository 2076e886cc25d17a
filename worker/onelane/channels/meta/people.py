"""Who wrote: of one person WhatsApp gives a phone number, a scoped id, both, or these and a parent id."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from onelane.channels.fields import SENDER_MAX
from onelane.errors import BadRequest
from onelane.model import Author, JsonObject, is_storable, storable

PHONE = re.compile(r"\+?\d{1,20}", re.ASCII)
SCOPED = re.compile(r"[A-Z]{2}\.[A-Za-z0-9]{1,128}", re.ASCII)
PARENT = re.compile(r"[A-Z]{2}\.ENT\.[A-Za-z0-9]{1,128}", re.ASCII)
NAME_MAX = 256

Keys = tuple[str, str, str]
"""Where an object has a phone number, a scoped id, a parent id."""
WRITER: Keys = ("from", "from_user_id", "from_parent_user_id")
RECEIVER: Keys = ("to", "to_user_id", "to_parent_user_id")
CONTACT: Keys = ("wa_id", "user_id", "parent_user_id")


@dataclass(frozen=True, slots=True)
class Names:
    """What one person is called."""

    phone: str | None = None
    scoped: str | None = None
    parent: str | None = None

    def __iter__(self) -> Iterator[str]:
        return (name for name in (self.phone, self.scoped, self.parent) if name is not None)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, as a message and its list of contacts name them."""

    names: Names
    senders: tuple[str, ...]
    """All their names, preferred first."""
    author: Author | None
    """Where the display name is known."""

    def route(self, phone_number_id: str | None) -> JsonObject:
        """Return the way back to them, from our number."""
        return way_back(phone_number_id, to=self.names.phone, recipient=self.names.scoped)


def way_back(phone_number_id: str | None, **receiver: str | None) -> JsonObject:
    """Return a route: what is not known is left out."""
    known = {"phone_number_id": phone_number_id, **receiver}
    return {name: value for name, value in known.items() if value is not None}


def names_in(values: JsonObject, keys: Keys) -> Names:
    """Read the names at `keys`. One that cannot be stored is refused, never mended: it might become another's."""
    return Names(*(_name(values, key) for key in keys))


def person_in(values: JsonObject, keys: Keys, contacts: Iterable[Any]) -> Person:
    """Read who is named at `keys`, with what the contact of the same id adds; BadRequest if nobody is."""
    names = names_in(values, keys)
    contact = _contact(names, contacts)
    senders = tuple(dict.fromkeys([*names, *names_in(contact, CONTACT)]))
    if not senders:
        raise BadRequest(keys[0], f"is missing, and {keys[1]} too")
    name = _display_name(contact)
    return Person(names, senders, Author(id=senders[0], name=name) if name else None)


def _name(values: JsonObject, key: str) -> str | None:
    value = values.get(key)
    if value is None or value == "":
        return None
    if not (isinstance(value, str) and len(value) <= SENDER_MAX and value.strip() and is_storable(value)):
        raise BadRequest(key, f"must be a text of at most {SENDER_MAX} characters")
    return value.removeprefix("+") if PHONE.fullmatch(value) else value


def _contact(names: Names, contacts: Iterable[Any]) -> JsonObject:
    """Find the contact of the same person: by id, since the lists are in no common order."""
    known = [contact for contact in contacts if isinstance(contact, dict)]
    for contact in known:
        if names.scoped and contact.get("user_id") == names.scoped:
            return contact
    for contact in known:
        # A contact of another scoped id is another person, who had the number before or has it now.
        if names.phone and contact.get("wa_id") == names.phone and not (names.scoped and contact.get("user_id")):
            return contact
    return {}


def _display_name(contact: JsonObject) -> str | None:
    profile = contact.get("profile")
    name = profile.get("name") or profile.get("username") if isinstance(profile, dict) else None
    return storable(name)[:NAME_MAX] or None if isinstance(name, str) else None
