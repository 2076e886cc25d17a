"""Bodies in JSON: read as every reader would read them, or refused as a whole."""

import json
from math import isfinite
from typing import Any, NoReturn

from onelane.errors import BadRequest
from onelane.model import JsonObject, is_storable, storable

DEPTH_MAX = 64
"""Objects and lists in one another: each step that stores a value calls itself that often."""


def json_object(body: bytes) -> JsonObject:
    """Read a JSON object without NaN, infinite numbers, a key given twice, or more than DEPTH_MAX levels."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unambiguous, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        raise BadRequest("body", "must be valid JSON in UTF-8, each key given once, not deeply nested") from None
    if not isinstance(value, dict):
        raise BadRequest("body", "must be a JSON object")
    if not _is_shallow(value):
        raise BadRequest("body", f"must not be nested more than {DEPTH_MAX} deep")
    return value


def repaired(value: Any) -> tuple[Any, tuple[str, ...]]:
    """Return `value` as Postgres can store it, and the names of what had to be mended for that, sorted."""
    found: set[str] = set()
    return _mended(value, found), tuple(sorted(found))


def _unambiguous(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    """Refuse 1e999: it would be read as infinite, which is not JSON any more."""
    number = float(digits)
    if not isfinite(number):
        raise ValueError("too large a number")
    return number


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return True
    return False


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _mended(value: Any, found: set[str]) -> Any:
    if isinstance(value, str):
        return value if is_storable(value) else _mended_text(value, found)
    if isinstance(value, dict):
        return {_mended(key, found): _mended(inner, found) for key, inner in value.items()}
    return [_mended(inner, found) for inner in value] if isinstance(value, list) else value


def _mended_text(text: str, found: set[str]) -> str:
    if "\0" in text:
        found.add("nul")
    if not is_storable(text.replace("\0", "")):
        found.add("surrogate")
    return storable(text)
