"""Slack's `message` and `app_mention` events: what people and apps write, change and take back."""

from typing import Annotated, Any, Final

from pydantic import Field

from onelane.channels import fields
from onelane.channels.slack.envelope import Envelope, Poster
from onelane.channels.slack.places import Id, Place, Text, Ts, instant, raw_of, thread_in
from onelane.deliveries import Delivery, Ignored, Item, Kind
from onelane.errors import BadRequest
from onelane.model import Attachment, AttachmentKind

WRITTEN: Final = frozenset({None, "file_share", "thread_broadcast", "me_message"})
NOTICES: Final = frozenset(
    [
        "assistant_app_thread",
        "bot_add",
        "bot_disable",
        "bot_enable",
        "bot_remove",
        "channel_archive",
        "channel_convert_to_private",
        "channel_convert_to_public",
        "channel_join",
        "channel_leave",
        "channel_name",
        "channel_posting_permissions",
        "channel_purpose",
        "channel_topic",
        "channel_unarchive",
        "ekm_access_denied",
        "group_archive",
        "group_join",
        "group_leave",
        "group_name",
        "group_purpose",
        "group_topic",
        "group_unarchive",
        "huddle_thread",
        "joiner_notification",
        "message_replied",
        "pinned_item",
        "reminder_add",
        "sh_room_created",
        "sh_room_shared",
        "slackbot_response",
        "tombstone",
        "unpinned_item",
    ]
)
"""Subtypes in which Slack itself says something."""
SLACKBOT: Final = frozenset({"USLACK", "USLACKBOT"})
NAME_MAX: Final = 1_024
KINDS: Final = {"image": AttachmentKind.IMAGE, "video": AttachmentKind.VIDEO, "audio": AttachmentKind.AUDIO}


class _File(fields.Incoming):
    id: Id
    subtype: str | None = None
    name: Annotated[fields.Storable, Field(max_length=NAME_MAX)] | None = None
    mimetype: fields.ContentType | None = None
    size: Annotated[int, Field(ge=0)] | None = None
    url_private: fields.Url | None = None
    """Missing for files of another workspace and for those that are not kept any more."""


class _Shared(fields.Incoming):
    is_share: bool | None = None


class _Message(Poster):
    channel: Id
    ts: Ts
    thread_ts: Ts | None = None
    text: Text = ""
    files: Annotated[tuple[_File, ...], Field(max_length=fields.ATTACHMENTS_MAX)] | None = None
    attachments: tuple[_Shared, ...] | None = None


class _Version(Poster):
    """A message as it is after a change or was before it: what is missing is not said."""

    ts: Ts | None = None
    thread_ts: Ts | None = None
    text: Text = ""
    edited: dict[str, Any] | None = None


class _Change(fields.Incoming):
    channel: Id
    ts: Ts
    message: _Version = _Version()
    previous_message: _Version | None = None
    deleted_ts: Ts | None = None


def read(envelope: Envelope) -> Item:
    """Make a message, an event or an echo of a `message`; an `app_mention` is the same line once more."""
    subtype = envelope.event.get("subtype")
    if isinstance(subtype, str) and subtype in NOTICES:
        return Ignored(subtype)
    match subtype:
        case "message_changed":
            return _changed(envelope, fields.checked(_Change, envelope.event))
        case "message_deleted":
            return _deleted(envelope, fields.checked(_Change, envelope.event))
    return _posted(envelope, fields.checked(_Message, envelope.event))


def _posted(envelope: Envelope, message: _Message) -> Item:
    if message.user in SLACKBOT:
        return Ignored("slackbot")
    if envelope.is_own(message):
        return _line(envelope, message, kind=Kind.ECHO, is_ours=True)
    if message.is_bot:
        return Ignored("other_bot")
    if message.user is None:
        raise BadRequest("user", "is missing")
    if message.subtype not in WRITTEN:
        return _line(envelope, message, kind=Kind.EVENT, event="unknown")
    return _line(envelope, message)


def _line(envelope: Envelope, message: _Message, **kind: Any) -> Delivery:
    """Make the line of a post. Of an echo nobody knows to whom in the channel it is said: the thread is."""
    is_echo = kind.get("kind") == Kind.ECHO
    thread = thread_in(message.channel, message.thread_ts, message.ts)
    place = Place(envelope.team, message.channel, None if is_echo else message.user, thread)
    return Delivery(
        external_id=envelope.message_key(message.channel, message.ts),
        text=message.text,
        attachments=tuple(map(_attachment, message.files or ())),
        parts={"forwarded": True} if any(one.is_share for one in message.attachments or ()) else {},
        mentioned=envelope.event["type"] == "app_mention" or envelope.mentions_us(),
        raw=raw_of(envelope.event),
        repairs=envelope.repairs,
        sent_at=instant(message.ts),
        **kind,
        **place.line(),
    )


def _attachment(file: _File) -> Attachment:
    kind = KINDS.get((file.mimetype or "").partition("/")[0], AttachmentKind.FILE)
    return Attachment(
        id=file.id,
        url=file.url_private,
        kind=AttachmentKind.VOICE if file.subtype == "slack_audio" else kind,
        content_type=file.mimetype,
        name=file.name,
        size=file.size,
    )


def _changed(envelope: Envelope, change: _Change) -> Item:
    """Tell what somebody edited; Slack also sends this when a link unfurls or a thread grows."""
    now, before = change.message, change.previous_message
    if now.subtype == "tombstone":
        return _deleted(envelope, change)
    if now.is_bot or envelope.is_own(now):
        return Ignored("edited_by_bot")
    if now.text == before.text if before else now.edited is None:
        return Ignored("text_unchanged")
    if now.ts is None or now.user is None:
        raise BadRequest("message", "must have ts and user")
    place = Place(envelope.team, change.channel, now.user, thread_in(change.channel, now.thread_ts, now.ts))
    return envelope.happened(
        "edited",
        place,
        text=now.text,
        quoted=envelope.message_key(change.channel, now.ts),
        sent_at=instant(change.ts),
    )


def _deleted(envelope: Envelope, change: _Change) -> Item:
    """Tell what somebody took back, without what it was. A thread's first message leaves a tombstone in its place."""
    before = change.previous_message or _Version()
    ts = change.deleted_ts or change.message.ts or before.ts
    if before.subtype == "tombstone":
        return Ignored("tombstone")
    if before.is_bot or envelope.is_own(before):
        return Ignored("deleted_by_bot")
    if ts is None:
        raise BadRequest("deleted_ts", "is missing")
    place = Place(envelope.team, change.channel, before.user, thread_in(change.channel, before.thread_ts, ts))
    kept = {name: value for name, value in envelope.event.items() if name not in {"message", "previous_message"}}
    return envelope.happened(
        "deleted",
        place,
        quoted=envelope.message_key(change.channel, ts),
        raw=raw_of(kept),
        sent_at=instant(change.ts),
    )
