"""A handler's failure, worded without the user's words."""

import traceback

FRAMES_MAX = 20


class HandlerFailed(Exception):  # noqa: N818 - says what happened
    """The handler raised, died, took too long, or returned what cannot be stored."""


def describe(error: BaseException) -> str:
    """Tell where an error arose and of which kind, without its message: that may quote the user."""
    frames = traceback.StackSummary.from_list(traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]).format()
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"Traceback (most recent call last):\n{''.join(frames)}{name}"
