"""What a handler returns and saves, before a transaction is begun: whether Postgres can store it."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from onelane.errors import BadResult
from onelane.storable import is_storable

STEP_KEY_MAX: Final = 200
EFFECTS_MAX_BYTES: Final = 1_000_000
NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""As JSON writes it. Behind an escaped backslash the same characters are what somebody has typed."""

Value = TypeVar("Value")


def step_key(key: str) -> str:
    """Check the key of a step."""
    if not (isinstance(key, str) and 1 <= len(key) <= STEP_KEY_MAX and is_storable(key)):
        raise BadResult(f"the key of a step is a text of 1 to {STEP_KEY_MAX} characters")
    return key


def step_value(value: Value) -> Value:
    """Check the result of a step."""
    check_storable({"step": value})
    return value


def check_storable(effects: Mapping[str, Any]) -> None:
    """Refuse what jsonb refuses, before a transaction is begun."""
    try:
        stored = json.dumps(effects, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadResult("a reply, output or state holds half of a character (a lone surrogate): replace it") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResult(f"a reply, output or state is not JSON: {type(error).__name__}") from None
    if NUL.search(stored):
        raise BadResult("a reply, output or state holds a NUL character: take it out")
    if len(stored) > EFFECTS_MAX_BYTES:
        raise BadResult(f"a turn may store {EFFECTS_MAX_BYTES} bytes, not {len(stored)}")
    for name in ("session_state", "user_state"):
        if not isinstance(effects.get(name, {}), dict):
            raise BadResult(f"{name} is a JSON object")
