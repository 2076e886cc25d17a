"""What Postgres gives back of the JSON that it keeps: no tuples, no keys but texts, and all in an order of its own."""

import json
from decimal import Decimal
from typing import Any


def stored(value: Any) -> Any:
    """Return a value as `jsonb` would give it back, which is always another object."""
    return json.loads(json.dumps(value), object_pairs_hook=_object, parse_float=_number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Sort keys by their bytes, short ones first."""
    return dict(sorted(dict(pairs).items(), key=lambda pair: (len(pair[0].encode()), pair[0].encode())))


def _number(text: str) -> Any:
    """Write out what has an exponent: a number without a fraction is an integer then. Zero has no sign."""
    return json.loads(format(Decimal(text) + 0, "f"))
