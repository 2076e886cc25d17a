"""Every kind of update that Telegram's Bot API 10.2 has, and what becomes of it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from onelane.channels.telegram.events import admitted, pressed, reacted
from onelane.channels.telegram.messages import asked_as_guest, deleted, edited, written
from onelane.channels.telegram.update import Update
from onelane.deliveries import Item

READERS: Final[Mapping[str, Callable[[Update], Iterable[Item]]]] = {
    "message": written,
    "business_message": written,
    "guest_message": asked_as_guest,
    "edited_message": edited,
    "edited_business_message": edited,
    "deleted_business_messages": deleted,
    "message_reaction": reacted,
    "callback_query": pressed,
    "my_chat_member": admitted,
}
"""What reads each kind that a bot may need."""

OFF: Final = frozenset(
    {
        "business_connection",
        "channel_post",
        "chat_boost",
        "chat_join_request",
        "chat_member",
        "chosen_inline_result",
        "edited_channel_post",
        "managed_bot",
        "message_reaction_count",
        "poll",
        "poll_answer",
        "purchased_paid_media",
        "removed_chat_boost",
        "stopped_message_generation",
        "subscription",
    }
)
"""Kinds that belong to nobody's conversation."""

TOO_URGENT: Final = frozenset({"inline_query", "pre_checkout_query", "shipping_query"})
"""Kinds that want an answer by a method of their own, within seconds: a queue is no place for them."""

IGNORED: Final = OFF | TOO_URGENT
