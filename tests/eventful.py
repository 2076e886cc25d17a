"""A bot that takes events as well."""

from onelane.bot import Turn
from onelane.model import Message


def handle(turn: Turn) -> str:
    """Answer a message."""
    return f"heard: {turn.message.text}"


def on_event(turn: Turn, event: Message) -> str:
    """Answer an event."""
    return f"saw a {event.event}"
