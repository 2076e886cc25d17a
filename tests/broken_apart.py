"""A handler that can be imported in a worker, and not in the process of its own that a suspect message gets."""

import sys

from onelane import Turn

if "onelane.turns.isolated" in sys.orig_argv:
    raise ImportError("not here")


def handle(turn: Turn) -> str:
    """Echo."""
    return turn.message.text
