"""Who wrote in Telegram, where, and the way back."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from onelane.channels import fields
from onelane.model import Author, JsonObject

NUMBER_MAX = 2**52
"""Telegram's ids have at most 52 significant bits."""
NAME_MAX = 256
MISNAMED_MAX = 128
PRIVATE, CHANNEL = "private", "channel"
KINDS = frozenset({"business", "guest", "topic", "direct"})
"""What stands in a conversation's name before an id."""

Number = Annotated[int, Field(strict=True, ge=-NUMBER_MAX, le=NUMBER_MAX)]
"""A JSON number without a fraction; a boolean is none."""
Name = Annotated[str, BeforeValidator(lambda text: text[:NAME_MAX] if isinstance(text, str) else text)]
"""For people to read: shortened, never refused for its length."""
Handle = Annotated[fields.ExternalId, Field(max_length=MISNAMED_MAX)]
"""An opaque id of Telegram's, which becomes part of one of ours."""


class User(fields.Incoming):
    """A person or a bot."""

    id: Number
    is_bot: bool = False
    first_name: Name = ""
    last_name: Name = ""
    username: Name = ""

    @property
    def author(self) -> Author:
        """Name them as people do."""
        return Author(id=str(self.id), name=" ".join(filter(None, (self.first_name, self.last_name))) or None)


class Chat(fields.Incoming):
    """A private chat, a group, a supergroup or a channel."""

    id: Number
    type: str = ""
    title: Name = ""
    is_forum: bool = False
    is_direct_messages: bool = False

    @property
    def author(self) -> Author:
        """Name the chat, where somebody wrote in its name."""
        return Author(id=str(self.id), name=self.title or None)


class Topic(fields.Incoming):
    """One person's part of the direct messages to a channel."""

    topic_id: Number


class Place(fields.Incoming):
    """Where something happened: what messages, reactions, deletions and members have in common."""

    chat: Chat
    business_connection_id: Handle | None = None
    message_thread_id: Number | None = None
    is_topic_message: bool = False
    direct_messages_topic: Topic | None = None

    @property
    def conversation(self) -> str | None:
        """Name the conversation partner; None in a private chat with the bot, where that is the person.

        A business chat has the id of the customer's own chat with the bot, and is another conversation.
        """
        suffix = self._topic()
        if self.business_connection_id is not None:
            return f"business:{self.business_connection_id}:{self.chat.id}{suffix}"
        if self.chat.type == PRIVATE and not suffix:
            return None
        return f"{self.chat.id}{suffix}"

    @property
    def route(self) -> JsonObject:
        """Return the arguments with which an answer gets here, as sendMessage names them."""
        topic = self.direct_messages_topic
        given = {
            "chat_id": self.chat.id,
            "message_thread_id": self.message_thread_id if self.is_topic_message else None,
            "direct_messages_topic_id": topic.topic_id if topic else None,
            "business_connection_id": self.business_connection_id,
        }
        return {name: value for name, value in given.items() if value is not None}

    def name_of(self, message_id: int) -> str | None:
        """Name a message of this chat for ever; None for an ephemeral one, whose number is 0.

        Edits, reactions, deletions and answers give the number in the chat: `update_id`, which names what was
        delivered, would find nothing that they speak of.
        """
        if not message_id:
            return None
        business = f"{self.business_connection_id}:" if self.business_connection_id is not None else ""
        return f"{business}{self.chat.id}:{message_id}"

    def _topic(self) -> str:
        thread = f":topic:{self.message_thread_id}" if self.is_topic_message and self.message_thread_id else ""
        direct = f":direct:{self.direct_messages_topic.topic_id}" if self.direct_messages_topic else ""
        return thread + direct


def parts_of(conversation: str) -> list[str]:
    """Return the ids of which a conversation's name is made."""
    return [part for part in conversation.split(":") if part not in KINDS] or [conversation]
