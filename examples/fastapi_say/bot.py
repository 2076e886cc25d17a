"""The bot beside the web front."""

from onelane import Turn


def handle(turn: Turn) -> str:
    """Answer whoever writes."""
    return "You will read here when an order of yours is on its way."
