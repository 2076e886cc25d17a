"""The smallest bot."""

from onelane import Turn


def handle(turn: Turn) -> str:
    """Return what was written."""
    return turn.message.text or "…"
