"""Who wrote: of one person WhatsApp gives a phone number, a scoped id, both, or these and a parent id."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onelane.channels.fields import SENDER_MAX
from onelane.errors import BadRequest
from onelane.model import Author, JsonObject
from onelane.storable import is_storable, storable

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


class Contacts:
    """A change's list of contacts, to be found by id: the lists are in no common order."""

    def __init__(self, contacts: Any) -> None:
        """Take the list; what is none, or no contact in it, says nothing of anybody."""
        self._by_scoped: dict[str, JsonObject] = {}
        self._by_phone: dict[str, JsonObject] = {}
        for contact in contacts if isinstance(contacts, list) else ():
            if isinstance(contact, dict):
                _keep(self._by_scoped, contact.get("user_id"), contact)
                _keep(self._by_phone, contact.get("wa_id"), contact)

    def person(self, values: JsonObject, keys: Keys) -> Person:
        """Read who is named at `keys`, with what the contact of the same id adds; BadRequest if nobody is."""
        names = names_in(values, keys)
        contact = self._of(names)
        senders = tuple(dict.fromkeys([*names, *names_in(contact, CONTACT)]))
        if not senders:
            raise BadRequest(keys[0], f"is missing, and {keys[1]} too")
        name = _display_name(contact)
        return Person(names, senders, Author(id=senders[0], name=name) if name else None)

    def _of(self, names: Names) -> JsonObject:
        if names.scoped in self._by_scoped:
            return self._by_scoped[names.scoped]
        contact = self._by_phone.get(names.phone or "", {})
        # A contact of another scoped id is another person, who had the number before or has it now.
        return {} if names.scoped and contact.get("user_id") else contact


def _keep(contacts: dict[str, JsonObject], name: Any, contact: JsonObject) -> None:
    if isinstance(name, str) and name:
        contacts.setdefault(name, contact)


def _name(values: JsonObject, key: str) -> str | None:
    value = values.get(key)
    if value is None or value == "":
        return None
    if not (isinstance(value, str) and len(value) <= SENDER_MAX and value.strip() and is_storable(value)):
        raise BadRequest(key, f"must be a text of at most {SENDER_MAX} characters")
    return value.removeprefix("+") if PHONE.fullmatch(value) else value


def _display_name(contact: JsonObject) -> str | None:
    profile = contact.get("profile")
    name = profile.get("name") or profile.get("username") if isinstance(profile, dict) else None
    return storable(name)[:NAME_MAX] or None if isinstance(name, str) else None
