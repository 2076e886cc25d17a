"""One update of Telegram's, and the bot that gets it."""

from dataclasses import dataclass

from onelane.channels.telegram.chats import User
from onelane.model import JsonObject


@dataclass(frozen=True, slots=True)
class Bot:
    """What is known of the bot itself."""

    id: int | None
    username: str
    """Without @, in lower case; empty when it is not configured."""

    def is_commanded(self, kind: str, text: str) -> bool:
        """Whether a marked stretch is a command to this bot: in groups `/command@name` names which one is meant."""
        _, at, name = text.partition("@")
        return kind == "bot_command" and (not at or not self.username or name.lower() == self.username)

    def is_called(self, kind: str, text: str, user: User | None) -> bool:
        """Whether a marked stretch names this bot."""
        if user is not None and user.id == self.id:
            return True
        name = text.rpartition("@")[2].lower()
        return kind in {"mention", "bot_command"} and "@" in text and bool(name) and name == self.username


@dataclass(frozen=True, slots=True)
class Update:
    """One update: its number, and the object of its kind."""

    id: int
    content: JsonObject
    bot: Bot
