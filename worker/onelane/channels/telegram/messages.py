"""Telegram's messages, new, edited and deleted, in chats, business chats and as a guest."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field

from onelane.channels import fields
from onelane.channels.telegram.chats import CHANNEL, Chat, Number, Place, User
from onelane.channels.telegram.content import Content, has_content
from onelane.channels.telegram.services import service_of
from onelane.channels.telegram.update import Update
from onelane.deliveries import Delivery, IdentityChange, Ignored, Item, Kind
from onelane.model import Author, JsonObject

DELETED_MAX = 1_000
MEMBERS_MAX = 1_000
SECOND_MAX = 32_503_680_000
"""The year 3000."""


class Quoted(fields.Incoming):
    """The message that another answers."""

    message_id: Number = 0
    forum_topic_created: Any = None
    """Every message of a topic answers its first line, which nobody wrote."""


class Message(Place):
    """A message, without what its author made: see Content."""

    message_id: Number
    date: Number = 0
    edit_date: Number = 0
    sender: User | None = Field(None, alias="from")
    sender_chat: Chat | None = None
    sender_business_bot: User | None = None
    is_from_offline: bool = False
    reply_to_message: Quoted | None = None
    guest_query_id: fields.ExternalId | None = None
    new_chat_members: Annotated[tuple[User, ...], Field(max_length=MEMBERS_MAX)] = ()
    left_chat_member: User | None = None
    migrate_to_chat_id: Number | None = None
    migrate_from_chat_id: Number | None = None

    @property
    def author(self) -> Author:
        """Return who wrote: a chat, where it was in its name; the account beside it is then one of Telegram's own."""
        return (self.sender_chat or self.sender or self.chat).author

    @property
    def is_a_bots(self) -> bool:
        """Whether another bot wrote it: two bots that answer each other never end."""
        return bool(self.sender and self.sender.is_bot and not self.sender_chat) or bool(self.sender_business_bot)

    @property
    def is_ours(self) -> bool:
        """Whether the owner of the business account wrote it, to the customer whose chat this is."""
        return self.business_connection_id is not None and self.sender is not None and self.sender.id != self.chat.id

    @property
    def quoted(self) -> str | None:
        """Name the message that it answers."""
        quoted = self.reply_to_message
        return self.name_of(quoted.message_id) if quoted and quoted.forum_topic_created is None else None


class Deletion(Place):
    """Messages that were deleted in a business chat."""

    message_ids: Annotated[tuple[Number, ...], Field(min_length=1, max_length=DELETED_MAX)]


def written(update: Update) -> Iterator[Item]:
    """Read a new message, or what happened in its place."""
    message = fields.checked(Message, update.content)
    if skipped := _skipped(message):
        yield skipped
    elif message.migrate_to_chat_id or message.migrate_from_chat_id:
        yield _migration(message, update)
    elif has_content(update.content):
        yield _said(message, update)
    else:
        yield _happened(message, update)


def asked_as_guest(update: Update) -> Iterator[Item]:
    """Read a message in which the bot is called into a chat where it is not: an event of a conversation of its own."""
    message = fields.checked(Message, update.content)
    if message.is_a_bots:
        yield Ignored("bot_message")
        return
    content = fields.checked(Content, update.content)
    conversation = f"guest:{message.chat.id}:{message.author.id}"
    line = _line(message, update, str(update.id), content, event="guest_message")
    route = {"guest_query_id": message.guest_query_id} if message.guest_query_id else None
    yield line.model_copy(
        update={"conversation": conversation, "author": message.author, "route": route, "mentioned": True}
    )


def edited(update: Update) -> Iterator[Item]:
    """Read the new version of a message."""
    message = fields.checked(Message, update.content)
    if skipped := _skipped(message):
        yield skipped
        return
    content = fields.checked(Content, update.content)
    line = _line(message, update, str(update.id), content, event="edited")
    quoted, at = message.name_of(message.message_id), moment(message.edit_date or message.date)
    yield line.model_copy(update={"quoted": quoted, "sent_at": at})


def deleted(update: Update) -> Iterator[Item]:
    """Read which messages of a business chat are deleted: an event each."""
    deletion = fields.checked(Deletion, update.content)
    for number, message_id in enumerate(deletion.message_ids):
        yield Delivery(
            senders=(str(deletion.chat.id),),
            conversation=deletion.conversation,
            external_id=f"{update.id}-{number}" if number else str(update.id),
            kind=Kind.EVENT,
            event="deleted",
            quoted=deletion.name_of(message_id),
            route=deletion.route,
            raw=fields.bounded(update.content),
        )


def moment(seconds: int) -> datetime | None:
    """Read a Unix time; 0 is none."""
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < SECOND_MAX else None


def _skipped(message: Message) -> Ignored | None:
    if message.chat.type == CHANNEL:
        return Ignored("channel_post")
    return Ignored("bot_message") if message.is_a_bots else None


def _said(message: Message, update: Update) -> Delivery:
    content = fields.checked(Content, update.content)
    name = message.name_of(message.message_id) or str(update.id)
    if message.is_ours:
        return _by_us(message, update, name, content)
    line = _line(message, update, name, content)
    marked = list(content.marked())
    is_command = any(entity.offset == 0 and update.bot.is_commanded(entity.type, text) for entity, text in marked)
    return line.model_copy(
        update={
            "closes": is_command or content.web_app_data is not None,
            "mentioned": any(update.bot.is_called(entity.type, text, entity.user) for entity, text in marked),
        }
    )


def _by_us(message: Message, update: Update, name: str, content: Content) -> Delivery:
    """Read what the owner of the account wrote, or the account by itself: a greeting, an away message."""
    if not message.is_from_offline:
        line = _line(message, update, name, content).model_copy(update={"kind": Kind.ECHO})
    else:
        line = _line(message, update, name, content, event="service")
        line = line.model_copy(update={"parts": {**line.parts, "service": {"what": "automatic_message"}}})
    return line.model_copy(update={"senders": (str(message.chat.id),)})


def _happened(message: Message, update: Update) -> Delivery:
    members = message.new_chat_members or ((message.left_chat_member,) if message.left_chat_member else ())
    parts: JsonObject = {}
    if members:
        event = "joined" if message.new_chat_members else "left"
        parts = {"members": [member.author.model_dump() for member in members]}
    elif service := service_of(update.content):
        event, parts = "service", {"service": {"what": service}}
    else:
        event = "unknown"
    name = message.name_of(message.message_id) or str(update.id)
    line = _line(message, update, name, event=event)
    return line.model_copy(update={"parts": parts})


def _line(
    message: Message, update: Update, external_id: str, content: Content | None = None, event: str | None = None
) -> Delivery:
    """Make a line of what every message has."""
    content = content or Content()
    return Delivery(
        senders=(message.author.id,),
        conversation=message.conversation,
        external_id=external_id,
        kind=Kind.EVENT if event else Kind.MESSAGE,
        event=event,
        text=content.words,
        attachments=content.attachments,
        parts=content.parts(update.content),
        quoted=message.quoted,
        author=message.author,
        route=message.route,
        sent_at=moment(message.date),
        raw=fields.bounded(update.content),
    )


def _migration(message: Message, update: Update) -> IdentityChange:
    """Read that a group became a supergroup; both announce it, with the same words."""
    old = message.chat.id if message.migrate_to_chat_id else message.migrate_from_chat_id
    new = message.migrate_to_chat_id or message.chat.id
    return IdentityChange(
        senders=(str(old),),
        adds=(str(new),),
        external_id=f"migration:{old}:{new}",
        route={"chat_id": new},
        raw=fields.bounded(update.content),
        sent_at=moment(message.date),
    )
