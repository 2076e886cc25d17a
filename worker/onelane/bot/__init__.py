"""What a bot author imports: a bot is a function that takes a Turn and returns its replies.

    from onelane import Reply, Turn

    def handle(turn: Turn) -> str | Reply | list[str | Reply] | None: ...

An `async` one takes an AsyncTurn, whose reading methods are coroutines. It holds no database connection. What it saves
through the turn is committed together with its replies: once, or not at all.
"""

from collections.abc import Awaitable, Callable

from onelane.bot.reply import Replies, Reply
from onelane.bot.subjects import Session, User
from onelane.bot.turn import AsyncTurn, Turn
from onelane.errors import FileAway, FileError, FileGone, FileTooLarge, Later
from onelane.history import Line, Role, ToolCall
from onelane.model import Attachment, AttachmentKind, Button, Failure, File, Message, Upload

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
    "Session",
    "ToolCall",
    "Turn",
    "Upload",
    "User",
]

Handler = Callable[[Turn], Replies | Awaitable[Replies]] | Callable[[AsyncTurn], Awaitable[Replies]]
