"""One change of a batch: what happened on one of our numbers."""

from datetime import UTC, datetime
from hashlib import sha256
from json import dumps
from typing import Any

from onelane.channels.meta.people import Contacts, Keys, Person
from onelane.errors import BadRequest
from onelane.model import JsonObject
from onelane.storable import is_storable

SECONDS = range(32_503_680_000)
"""Until the year 3000."""
NUMBER_ID_MAX = 64


class Change:
    """What surrounds the objects of a change: our number, and the contacts."""

    def __init__(self, value: JsonObject, own_number: str | None) -> None:
        """Take a change's `value`, and the configured id of our number, for a value that names none."""
        metadata = value.get("metadata")
        given = metadata.get("phone_number_id") if isinstance(metadata, dict) else None
        is_usable = isinstance(given, str) and 0 < len(given) <= NUMBER_ID_MAX and is_storable(given)
        self.phone_number_id: str | None = given if is_usable else own_number
        self._contacts = Contacts(value.get("contacts"))

    def person(self, values: JsonObject, keys: Keys) -> Person:
        """Read who is named in one of its objects."""
        return self._contacts.person(values, keys)


def object_in(value: Any, where: str) -> JsonObject:
    """Return `value` if it is an object; BadRequest otherwise."""
    if not isinstance(value, dict):
        raise BadRequest(where, "must be a JSON object")
    return value


def instant(value: Any) -> datetime | None:
    """Read Unix seconds, as text or number; of anything else the time is not known."""
    try:
        seconds = int(value) if isinstance(value, str | int) else -1
    except ValueError:
        return None
    return datetime.fromtimestamp(seconds, UTC) if seconds in SECONDS else None


def made_id(what: str, value: JsonObject) -> str:
    """Make an id for what Meta gives none: the same for the same content, and telling nothing of it."""
    return f"{what}:{sha256(dumps(value, sort_keys=True).encode()).hexdigest()}"
