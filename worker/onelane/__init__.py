"""One person, one session, one message at a time. A bot imports its names from here; everything else is internal."""

from onelane.bot import Reply, Session, Turn, User
from onelane.model import Attachment, Message, Utterance

__all__ = ["Attachment", "Message", "Reply", "Session", "Turn", "User", "Utterance"]
