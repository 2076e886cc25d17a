"""A bot that knows when to call a human."""

from onelane import Turn


def handle(turn: Turn) -> str:
    """Answer, or give the conversation to a human."""
    if "human" in turn.message.text.lower():
        turn.session.state["asked"] = True
        turn.escalate()
        return "A colleague will answer you here."
    if turn.session.state.pop("asked", False):
        return "I am back. What else?"
    return "How can I help? Write “human” for a colleague."
