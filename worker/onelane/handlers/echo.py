"""The smallest bot: it returns what it receives."""

from onelane.bot import Turn


def handle(turn: Turn) -> str:
    """Return the message's own text, or its button's payload."""
    return turn.message.text or turn.message.button or "…"
