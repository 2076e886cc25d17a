"""What is wrong with a value from outside, in plain English: the first problem that pydantic found, in one line.

Values themselves are never repeated, since many are secrets or quote a user.
"""

from typing import Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

PLAIN: Final = {
    "missing": "is missing",
    "extra_forbidden": "is unknown, see .env.example",
    "tuple_type": "must be a JSON list",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "too_short": "must not be empty",
}
"""Messages by pydantic's type of error, where its own message speaks of Python."""


TOO_LONG: Final = frozenset({"too_long", "string_too_long"})


class Problem(NamedTuple):
    """One problem: where it is, and what is allowed there."""

    path: tuple[str, ...]
    """Names from the outermost field inwards; empty when the value as a whole is wrong."""
    message: str
    is_missing: bool

    def __str__(self) -> str:
        return " ".join(f"{'.'.join(self.path)}: {self.message}".removeprefix(": ").split())


def first_problem(error: ValidationError) -> Problem:
    """Return the first of the problems that `error` lists."""
    found = error.errors(include_url=False)[0]
    # A key that is not allowed may be a secret in the wrong place; pydantic ends its path with `[key]`.
    loc = found["loc"][:-2] if found["loc"][-1:] == ("[key]",) else found["loc"]
    plain = _too_long(found) if found["type"] in TOO_LONG else PLAIN.get(found["type"])
    message = plain or found["msg"].removeprefix("Value error, ").replace("Input should", "must")
    return Problem(tuple(map(str, loc)), message, found["type"] == "missing")


def _too_long(found: ErrorDetails) -> str:
    what = "characters" if isinstance(found["input"], str) else "entries"
    return f"must have at most {found['ctx']['max_length']} {what}"


def setting_problem(error: ValidationError) -> str:
    """Name the variable and what is allowed there, in one line."""
    problem = first_problem(error)
    field, *rest = problem.path or ("",)
    named = problem._replace(path=(field.upper(), *rest))
    hint = "; see .env.example, or `onelane run` for embedded servers" if problem.is_missing and not rest else ""
    return f"{named}{hint}"


def setting_name(error: SettingsError) -> str:
    """Find the field's name in pydantic-settings' message: `error parsing value for field "x" from …`."""
    parts = str(error).split('"')
    return parts[1].upper() if len(parts) > 1 else "a setting"
