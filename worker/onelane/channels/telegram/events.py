"""What Telegram reports that is no message: a pressed button, a reaction, the bot's own membership."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from onelane.channels import fields
from onelane.channels.telegram.chats import CHANNEL, PRIVATE, Chat, Number, Place, User
from onelane.channels.telegram.messages import moment
from onelane.channels.telegram.update import Update
from onelane.deliveries import Delivery, Ignored, Item, Kind
from onelane.model import JsonObject

ROWS_MAX = 200
REACTIONS_MAX = 100
STAR = "\N{WHITE MEDIUM STAR}"
INSIDE = frozenset({"creator", "administrator", "member"})


class Key(fields.Incoming):
    """A button below a message."""

    text: fields.Text = ""
    callback_data: str | None = None


class Keyboard(fields.Incoming):
    """The buttons below a message."""

    inline_keyboard: Annotated[tuple[tuple[Key, ...], ...], Field(max_length=ROWS_MAX)] = ()


class Pressed(Place):
    """The message that has the button; of an inaccessible one only its chat and number."""

    message_id: Number = 0
    reply_markup: Keyboard | None = None

    def label_of(self, data: str) -> str:
        """Return what stands on the button, as far as the message still shows it."""
        keys = [key for row in self.reply_markup.inline_keyboard for key in row] if self.reply_markup else []
        return next((key.text for key in keys if key.callback_data == data), "")


class Callback(fields.Incoming):
    """That somebody pressed a button."""

    id: fields.ExternalId
    sender: User = Field(alias="from")
    message: Pressed | None = None
    inline_message_id: fields.ExternalId | None = None
    data: fields.Button | None = None


class Emoji(fields.Incoming):
    """One reaction."""

    type: fields.Text
    emoji: fields.Text | None = None
    custom_emoji_id: fields.Text | None = None


class Reaction(Place):
    """What somebody's reactions to a message are now."""

    message_id: Number
    date: Number = 0
    user: User | None = None
    actor_chat: Chat | None = None
    old_reaction: Annotated[tuple[Emoji, ...], Field(max_length=REACTIONS_MAX)] = ()
    new_reaction: Annotated[tuple[Emoji, ...], Field(max_length=REACTIONS_MAX)] = ()


class Member(fields.Incoming):
    """Where somebody stands in a chat."""

    status: fields.Text
    is_member: bool = False

    @property
    def is_inside(self) -> bool:
        """Whether they are in the chat."""
        return self.status in INSIDE or (self.status == "restricted" and self.is_member)


class Membership(Place):
    """That the bot's own standing changed."""

    sender: User = Field(alias="from")
    date: Number = 0
    old_chat_member: Member
    new_chat_member: Member


def pressed(update: Update) -> Iterator[Item]:
    """Read a pressed button: a message of its chat; of the person who pressed it, where there is none to answer in."""
    callback = fields.checked(Callback, update.content)
    if callback.data is None:
        yield Ignored("callback_game")
        return
    message = callback.message
    # An answer to one reader of a channel is for that reader, not for all.
    place = message if message and message.chat.type != CHANNEL else None
    route: JsonObject = place.route if place else {"chat_id": callback.sender.id}
    if callback.inline_message_id:
        route = {**route, "inline_message_id": callback.inline_message_id}
    conversation = place.conversation if place else None
    yield Delivery(
        senders=(str(callback.sender.id),),
        conversation=conversation,
        external_id=str(update.id),
        text=message.label_of(callback.data) if message else "",
        button=callback.data,
        closes=True,
        quoted=message.name_of(message.message_id) if message else None,
        author=callback.sender.author,
        route={**route, "callback_query_id": callback.id},
        raw=fields.bounded(update.content),
    )


def reacted(update: Update) -> Iterator[Item]:
    """Read a reaction. In chats with topics it does not say in which of them, and is not kept."""
    reaction = fields.checked(Reaction, update.content)
    if reaction.chat.type == CHANNEL or reaction.chat.is_forum or reaction.chat.is_direct_messages:
        yield Ignored("reaction_elsewhere")
        return
    author = (reaction.actor_chat or reaction.user or reaction.chat).author
    yield Delivery(
        senders=(author.id,),
        conversation=reaction.conversation,
        external_id=str(update.id),
        kind=Kind.EVENT,
        event="reaction",
        parts={"reaction": _newest(reaction)},
        quoted=reaction.name_of(reaction.message_id),
        author=author,
        route=reaction.route,
        sent_at=moment(reaction.date),
        raw=fields.bounded(update.content),
    )


def admitted(update: Update) -> Iterator[Item]:
    """Read what somebody did with the bot: blocked it, let it in, put it out."""
    membership = fields.checked(Membership, update.content)
    if membership.chat.type == CHANNEL:
        yield Ignored("channel_membership")
        return
    event = _admission(membership)
    yield Delivery(
        senders=(str(membership.sender.id),),
        conversation=membership.conversation,
        external_id=str(update.id),
        kind=Kind.EVENT,
        event=event,
        parts={"service": {"what": "my_chat_member"}} if event == "service" else {},
        author=membership.sender.author,
        route=membership.route,
        sent_at=moment(membership.date),
        raw=fields.bounded(update.content),
    )


def _admission(membership: Membership) -> str:
    was, now = membership.old_chat_member, membership.new_chat_member
    if was.is_inside == now.is_inside:
        return "service"
    if membership.chat.type == PRIVATE:
        return "unblocked" if now.is_inside else "blocked"
    return "joined" if now.is_inside else "left"


def _newest(reaction: Reaction) -> JsonObject:
    """Return the reaction that was added; where one of several was taken back, one that is left."""
    added = [one for one in reaction.new_reaction if one not in reaction.old_reaction] or reaction.new_reaction
    if not added:
        return {"emoji": None}
    newest = added[0]
    if newest.custom_emoji_id is not None:
        return {"emoji": "custom", "custom_emoji_id": newest.custom_emoji_id}
    return {"emoji": newest.emoji if newest.emoji is not None else STAR}
