"""Reading what somebody else wrote: JSON that every reader would read alike, within bounds; texts that can be stored.

`json_object` refuses, for quarantine. `repaired` mends, and names what it mended.
"""

import json
from math import isinf
from typing import Any, Final, NoReturn, TypeVar

from onelane.errors import BadRequest
from onelane.model import JsonObject
from onelane.storable import is_storable, storable

DEPTH_MAX: Final = 64
VALUES_MAX: Final = 250_000
"""Commas and brackets of a body, those in its texts too: as many values it has at most."""
DIGITS_MAX: Final = 64
"""Of a number, its sign, point and exponent counted. Ids of providers have up to 20."""
MALFORMED: Final = "must be valid JSON: UTF-8, each key given once, no NaN, numbers of at most 64 characters"

Read = TypeVar("Read")


def json_object(body: bytes | str) -> JsonObject:
    """Read a JSON object; raise BadRequest for what another reader may read otherwise, and for what is out of bounds.

    Texts in it may still hold NUL characters and lone surrogates: see `repaired`.
    """
    try:
        text = body if isinstance(body, str) else body.decode()
        _count_values(text)
        value = _read(text)
    except (ValueError, RecursionError):
        raise BadRequest("body", MALFORMED) from None
    if not isinstance(value, dict):
        raise BadRequest("body", "must be a JSON object")
    if text.count("[") + text.count("{") > DEPTH_MAX and _is_deeper(value, DEPTH_MAX):
        raise BadRequest("body", f"must not be nested deeper than {DEPTH_MAX}")
    return value


def repaired(value: Read) -> tuple[Read, tuple[str, ...]]:
    """Return a text, or all texts of a JSON value, as Postgres can store them, and the names of what was mended.

    `nul`: NUL characters were left out; in keys they became `?`. `surrogate`: halves of characters, or bytes that are
    not UTF-8, became `?`.
    """
    repairs: set[str] = set()
    return _repaired(value, repairs), tuple(sorted(repairs))


def _count_values(text: str) -> None:
    if text.count(",") + text.count("[") + text.count("{") > VALUES_MAX:
        raise BadRequest("body", f"must have at most {VALUES_MAX} values")


def _unambiguous(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _whole(digits: str) -> int:
    return int(_short(digits))


def _real(digits: str) -> float:
    """Read a number with a point or an exponent; what is too large for one would become infinite."""
    if isinf(number := float(_short(digits))):
        raise ValueError("a number is too large")
    return number


def _short(digits: str) -> str:
    if len(digits) > DIGITS_MAX:
        raise ValueError("a number is too long")
    return digits


def _refuse(_constant: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


_read: Final = json.JSONDecoder(
    object_pairs_hook=_unambiguous, parse_int=_whole, parse_float=_real, parse_constant=_refuse
).decode


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(inner) and (levels == 0 or any(_is_deeper(one, levels - 1) for one in inner))


def _repaired(value: Any, repairs: set[str]) -> Any:
    if isinstance(value, str):
        if is_storable(value):
            return value
        repairs |= {"nul"} if "\0" in value else set()
        repairs |= {"surrogate"} if not is_storable(value.replace("\0", "")) else set()
        return storable(value)
    if isinstance(value, dict):
        return {_repaired_key(key, repairs): _repaired(inner, repairs) for key, inner in value.items()}
    return [_repaired(inner, repairs) for inner in value] if isinstance(value, list) else value


def _repaired_key(key: str, repairs: set[str]) -> str:
    """Mend a field's name. With its NUL left out it might become another field's name, whose value it would replace."""
    repairs |= {"nul"} if "\0" in key else set()
    return str(_repaired(key.replace("\0", "?"), repairs))
