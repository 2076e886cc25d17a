"""The smallest bot: says what it hears."""

from onelane.bot import Turn


def handle(turn: Turn) -> str:
    """Answer with the message's own words, or its button's."""
    return turn.message.text or turn.message.button or "…"
