"""One change of a batch: what happened on one of our numbers."""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from json import dumps
from typing import Any

from onelane.channels.meta.people import Keys, Person, person_in
from onelane.errors import BadRequest
from onelane.model import JsonObject, is_storable

SECONDS = range(32_503_680_000)
"""Until the year 3000."""
NUMBER_ID_MAX = 64


@dataclass(frozen=True, slots=True)
class Change:
    """A change's `value`, and what the channel knows if it says less."""

    value: JsonObject
    own_number: str | None
    """The configured id of our number."""

    @property
    def phone_number_id(self) -> str | None:
        """The id of our number to which this was written."""
        metadata = self.value.get("metadata")
        given = metadata.get("phone_number_id") if isinstance(metadata, dict) else None
        is_usable = isinstance(given, str) and 0 < len(given) <= NUMBER_ID_MAX and is_storable(given)
        return given if is_usable else self.own_number

    def person(self, values: JsonObject, keys: Keys) -> Person:
        """Read who is named in one of its objects."""
        contacts = self.value.get("contacts")
        return person_in(values, keys, contacts if isinstance(contacts, list) else ())


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
