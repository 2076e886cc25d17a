"""One person, one session, one message at a time. A bot imports its names from here; everything else is internal.

A name is imported when it is first used: a helper process that runs no bot saves the memory of what a bot needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onelane.bot import AsyncTurn, Later, Session, Turn, User
    from onelane.bot.reply import Reply
    from onelane.errors import FileAway, FileError, FileGone, FileTooLarge
    from onelane.history import Line, Role, ToolCall
    from onelane.model import Attachment, AttachmentKind, Button, Failure, File, Message, Upload
    from onelane.speaking import Said, Speaker, StoreUnavailable, Unsendable, say

__all__ = [
    "AsyncTurn",
    "Attachment",
    "AttachmentKind",
    "Button",
    "Failure",
    "File",
    "FileAway",
    "FileError",
    "FileGone",
    "FileTooLarge",
    "Later",
    "Line",
    "Message",
    "Reply",
    "Role",
    "Said",
    "Session",
    "Speaker",
    "StoreUnavailable",
    "ToolCall",
    "Turn",
    "Unsendable",
    "Upload",
    "User",
    "say",
]
FROM_OUTSIDE = ("Said", "Speaker", "StoreUnavailable", "Unsendable", "say")
"""What speaks from outside a turn; a bot needs none of it."""


def job(message_id: str) -> None:
    """Refuse to run: a stock RQ worker was pointed at a lane. RQ's jobs name this function (`lanes/jobs.py`)."""
    raise RuntimeError(f"message {message_id} belongs to a lane: start `onelane worker` instead of `rq worker`")


def __getattr__(name: str) -> object:
    """Import a bot's name, which `onelane.bot` has, or one of `onelane.speaking`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("onelane.speaking" if name in FROM_OUTSIDE else "onelane.bot"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
