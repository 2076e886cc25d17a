"""Forms as Twilio sends them: what two readers could read differently is not understood, all else can be stored."""

import re
from collections.abc import Callable, Sequence
from string import hexdigits

from onelane.channels.bodies import repaired
from onelane.errors import BadRequest
from onelane.storable import is_storable

FORM = "application/x-www-form-urlencoded"
FIELDS_MAX = 1_000
NAMES = ("MessageSid", "From", "WaId", "ExternalUserId")
BETWEEN = "\u0100"
"""Stands between names and values while a body is read as latin-1, which has no such character."""
BYTES = {f"{high}{low}": chr(int(high + low, 16)) for high in hexdigits for low in hexdigits}

Pairs = Sequence[tuple[str, str]]


def pairs_of(body: bytes) -> list[tuple[str, str]]:
    """Read the fields in their order, blank ones too. Bytes that are not UTF-8 become lone surrogates.

    In one pass over the body, and not field by field: it is read before anybody knows who sent it.
    """
    parts = (part.partition("=") for part in body.decode("latin-1").split("&") if part)
    text = BETWEEN.join([half for name, _, value in parts for half in (name, value)])
    first, *escaped = text.replace("+", " ").split("%")
    decoded = first + "".join([BYTES.get(one[:2], f"%{one[:2]}") + one[2:] for one in escaped])
    halves = [half if half.isascii() else _utf8(half) for half in decoded.split(BETWEEN)]
    return list(zip(halves[::2], halves[1::2], strict=False))


class Form:
    """A form's fields, each with one value that Postgres can store."""

    def __init__(self, body: bytes, is_read: Callable[[str], object]) -> None:
        """Read a body; raise BadRequest if a field that `is_read` has two values, since either may be the wrong one."""
        if body.count(b"&") >= FIELDS_MAX:
            raise BadRequest("body", f"must be a form of at most {FIELDS_MAX} fields")
        pairs = set(pairs_of(body))
        names = [name for name, _ in pairs]
        repeated = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
        if twice := sorted(filter(is_read, repeated)):
            raise BadRequest(twice[0], "is given twice")
        given = dict(sorted(pairs))
        if spoilt := [name for name in NAMES if not is_storable(given.get(name, ""))]:
            raise BadRequest(spoilt[0], "must be UTF-8 without NUL characters: mended, it would name somebody else")
        self.fields, repairs = repaired(given)
        """By name; of a field that nobody reads, one of its values."""
        self.repairs = {*repairs} | ({"repeated"} if repeated else set())

    def get(self, name: str) -> str:
        """Return a field; an empty text when it is missing."""
        return self.fields.get(name, "")

    def text(self, name: str, length_max: int) -> str:
        """Return a field, cut where it is too long."""
        text = self.get(name)
        if len(text) > length_max:
            self.repairs.add("cut")
        return text[:length_max]

    def numbered(self, name: str) -> list[int]:
        """List the numbers behind a field's name, in order: 0 and 1 for MediaUrl0 and MediaUrl1."""
        found = (re.fullmatch(rf"{name}(\d{{1,3}})", one, re.ASCII) for one in self.fields)
        return sorted(int(one[1]) for one in found if one)


def _utf8(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "surrogateescape")
