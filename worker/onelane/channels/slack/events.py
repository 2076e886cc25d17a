"""Slack's events, by their type."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Final

from pydantic import Field

from onelane.channels import fields
from onelane.channels.slack import messages
from onelane.channels.slack.envelope import Envelope, opened
from onelane.channels.slack.places import Id, Place, Ts, thread_in
from onelane.deliveries import Ignored, Item
from onelane.errors import BadRequest
from onelane.model import JsonObject

OF_THE_WORKSPACE: Final = frozenset(
    [
        "app_requested",
        "app_uninstalled",
        "assistant_thread_context_changed",
        "channel_archive",
        "channel_created",
        "channel_deleted",
        "channel_history_changed",
        "channel_rename",
        "channel_unarchive",
        "dnd_updated",
        "emoji_changed",
        "group_archive",
        "group_deleted",
        "group_rename",
        "group_unarchive",
        "im_close",
        "im_created",
        "im_open",
        "message_metadata_deleted",
        "message_metadata_posted",
        "message_metadata_updated",
        "subteam_created",
        "subteam_members_changed",
        "subteam_updated",
        "team_join",
        "team_rename",
        "tokens_revoked",
        "user_change",
        "user_profile_changed",
    ]
)
"""Events that are of no conversation."""


class _ReactedTo(fields.Incoming):
    type: str
    channel: Id | None = None
    ts: Ts | None = None


class _Reacted(fields.Incoming):
    user: Id
    reaction: Annotated[fields.Storable, Field(max_length=256)]
    item: _ReactedTo


class _OfMember(fields.Incoming):
    user: Id
    channel: Id


class _Thread(fields.Incoming):
    user_id: Id
    channel_id: Id
    thread_ts: Ts


class _Started(fields.Incoming):
    assistant_thread: _Thread


class _Other(fields.Incoming):
    user: Id
    channel: Id | None = None
    thread_ts: Ts | None = None


def read(body: JsonObject, app_id: str | None) -> Item:
    """Make a line of what the Events API posts."""
    match body.get("type"):
        case "event_callback":
            return _read_event(opened(body, app_id))
        case "app_rate_limited":
            return Ignored("app_rate_limited")
    raise BadRequest("type", "is unknown")


def _read_event(envelope: Envelope) -> Item:
    kind = envelope.event.get("type")
    if not isinstance(kind, str):
        raise BadRequest("event.type", "must be a text")
    return Ignored(kind) if kind in OF_THE_WORKSPACE else READERS.get(kind, _other)(envelope)


def _reacted(envelope: Envelope) -> Item:
    """Tell a reaction. Slack does not say in which thread the message is: its own is assumed."""
    found = fields.checked(_Reacted, envelope.event)
    channel, ts = found.item.channel, found.item.ts
    if found.user in envelope.bots:
        return Ignored("own_reaction")
    if found.item.type != "message":
        return Ignored("reaction_to_file")
    if channel is None or ts is None:
        raise BadRequest("item", "must have channel and ts")
    is_added = envelope.event["type"] == "reaction_added"
    return envelope.happened(
        "reaction",
        Place(envelope.team, channel, found.user, thread_in(channel, None, ts)),
        parts={"reaction": {"emoji": found.reaction if is_added else None}},
        quoted=envelope.message_key(channel, ts),
    )


def _of_member(event: str, envelope: Envelope) -> Item:
    found = fields.checked(_OfMember, envelope.event)
    return envelope.happened(event, Place(envelope.team, found.channel, found.user))


def _started(envelope: Envelope) -> Item:
    thread = fields.checked(_Started, envelope.event).assistant_thread
    return envelope.happened("opened", Place(envelope.team, thread.channel_id, thread.user_id, thread.thread_ts))


def _other(envelope: Envelope) -> Item:
    """Keep what the app subscribes to and Onelane does not know, for the person whom it names."""
    found = fields.checked(_Other, envelope.event)
    return envelope.happened("unknown", Place(envelope.team, found.channel, found.user, found.thread_ts))


READERS: Final[Mapping[str, Callable[[Envelope], Item]]] = {
    "message": messages.read,
    "app_mention": messages.read,
    "reaction_added": _reacted,
    "reaction_removed": _reacted,
    "member_joined_channel": partial(_of_member, "joined"),
    "member_left_channel": partial(_of_member, "left"),
    "app_home_opened": partial(_of_member, "opened"),
    "assistant_thread_started": _started,
}
