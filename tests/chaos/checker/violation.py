"""A broken promise, in one sentence."""

from typing import NamedTuple


class Violation(NamedTuple):
    """What a check found."""

    promise: str
    """The check that found it, by its module's name."""
    user_id: str | None
    at: float | None
    """When it showed, on the clock of histories; None when no moment can be named."""
    sentence: str
