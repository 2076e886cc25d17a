"""Messages by which a user ends the session: exactly one of the channel's words, in any case."""

from onelane.config import Channel
from onelane.deliveries import Kind


def is_end(kind: str, text: str, channel: Channel) -> bool:
    """Whether a line of this channel ends its session."""
    said = text.strip().casefold()
    return kind == Kind.MESSAGE and any(said == word.casefold() for word in channel.end_words)
