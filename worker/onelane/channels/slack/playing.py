"""Slack's side: the webhook with which it would deliver a line. For trying a bot without a workspace."""

import json
import re
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlencode

from onelane.channels.provider import Persona
from onelane.channels.slack.places import DIRECT, Place, escaped
from onelane.deliveries import Delivery, Kind
from onelane.errors import BadRequest
from onelane.model import Attachment, AttachmentKind, JsonObject

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
TEAM: Final = "T0ONELANE"
APP: Final = "A0ONELANE"
BOT: Final = "U0ONELANE"
TS: Final = re.compile(r"[0-9]{1,12}\.[0-9]{1,9}")

Body = tuple[str, str]
"""A content type, and a text of it."""


def persona_of(name: str) -> Persona:
    """Give a name an id and a direct channel with the bot."""
    digits = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10].upper()
    place = Place(TEAM, f"{DIRECT}{digits}", f"U{digits}")
    return Persona(senders=place.line()["senders"], route=place.route)


def played(delivery: Delivery, app_id: str | None) -> Body:
    """Write what Slack would post; raise BadRequest for what it never sends."""
    stage = _stage_of(delivery, app_id or APP)
    if delivery.kind is Kind.EVENT:
        return _event(stage, delivery)
    if delivery.kind is Kind.ECHO:
        return _posted(stage, {**_message(stage, delivery), "user": BOT, "bot_id": "B0ONELANE", "app_id": stage.app})
    if "view" in delivery.parts:
        return _form(stage, delivery)
    if delivery.button is not None:
        return _button(stage, delivery)
    return _command(stage, delivery) if delivery.text.startswith("/") else _posted(stage, _message(stage, delivery))


@dataclass(frozen=True, slots=True)
class _Stage:
    """Who, where and when. What a line does not say is made up, from its id, so that it is the same again."""

    app: str
    team: str
    user: str
    channel: str
    thread: str | None
    id: str
    ts: str


def _stage_of(delivery: Delivery, app: str) -> _Stage:
    route = delivery.route or {}
    sender = next((name for name in delivery.senders if ":" in name), "")
    direct = next((name for name in delivery.senders if name.startswith(DIRECT)), None)
    within, _, thread = (delivery.conversation or "").partition(":")
    return _Stage(
        app=app,
        team=route.get("team") or sender.partition(":")[0] or TEAM,
        user=delivery.author.id if delivery.author else sender.partition(":")[2] or BOT,
        channel=within or direct or route.get("channel") or f"{DIRECT}0ONELANE",
        thread=thread if TS.fullmatch(thread) else route.get("thread_ts"),
        id=delivery.external_id,
        ts=_ts_of(delivery),
    )


def _ts_of(delivery: Delivery) -> str:
    """Take the time in a message's id, or make one, finer than Slack's: of many at once no two may be alike."""
    last = delivery.external_id.rpartition(":")[2]
    if TS.fullmatch(last):
        return last
    at = delivery.sent_at.timestamp() if delivery.sent_at else time.time()
    return f"{int(at)}.{int(sha256(delivery.external_id.encode()).hexdigest(), 16) % 1_000_000_000:09}"


def _posted(stage: _Stage, event: JsonObject, **more: Any) -> Body:
    body = {
        "type": "event_callback",
        "team_id": stage.team,
        "api_app_id": stage.app,
        "event_id": f"Ev{sha256(stage.id.encode()).hexdigest()[:10].upper()}",
        "event_time": int(float(stage.ts)),
        "authorizations": [{"team_id": stage.team, "user_id": BOT, "is_bot": True}],
        "event": {"event_ts": stage.ts, **event},
    }
    return JSON, json.dumps({**body, **more})


def _message(stage: _Stage, delivery: Delivery) -> JsonObject:
    mark, text = f"<@{BOT}>", escaped(delivery.text)
    if delivery.mentioned:
        text = text.replace(escaped(mark), mark) if mark in delivery.text else f"{mark} {text}"
    is_thread = stage.thread not in {None, stage.ts}
    return {
        "type": "message",
        "user": stage.user,
        "channel": stage.channel,
        "channel_type": "im" if stage.channel.startswith(DIRECT) else "channel",
        "ts": stage.ts,
        "text": text,
        **({"thread_ts": stage.thread} if is_thread else {}),
        **({"subtype": "file_share", "files": list(map(_file, delivery.attachments))} if delivery.attachments else {}),
    }


def _file(attachment: Attachment) -> JsonObject:
    file = {
        "id": attachment.id or "F0ONELANE",
        "name": attachment.name,
        "mimetype": attachment.content_type,
        "size": attachment.size,
        "url_private": attachment.url,
        "subtype": "slack_audio" if attachment.kind is AttachmentKind.VOICE else None,
    }
    return {name: value for name, value in file.items() if value is not None}


def _event(stage: _Stage, delivery: Delivery) -> Body:
    line = {"user": stage.user, "ts": (delivery.quoted or stage.ts).rpartition(":")[2]}
    if stage.thread and stage.thread != line["ts"]:
        line["thread_ts"] = stage.thread
    member = {"user": stage.user, "channel": stage.channel}
    message = {"type": "message", "channel": stage.channel, "ts": stage.ts}
    reaction = delivery.parts.get("reaction", {}).get("emoji")
    events: dict[str | None, JsonObject] = {
        "edited": {
            **message,
            "subtype": "message_changed",
            "message": {**line, "text": escaped(delivery.text), "edited": {"user": stage.user, "ts": stage.ts}},
            "previous_message": {**line, "text": f"not {escaped(delivery.text)}"},
        },
        "deleted": {**message, "subtype": "message_deleted", "deleted_ts": line["ts"], "previous_message": line},
        "reaction": {
            "type": "reaction_added" if reaction else "reaction_removed",
            "user": stage.user,
            "reaction": reaction or "thumbsup",
            "item": {"type": "message", "channel": stage.channel, "ts": line["ts"]},
        },
        "joined": {"type": "member_joined_channel", **member},
        "left": {"type": "member_left_channel", **member},
        "opened": {"type": "app_home_opened", **member, "tab": "messages"},
    }
    if delivery.event not in events:
        raise BadRequest("event", "is none that Slack sends")
    return _posted(stage, events[delivery.event], event_id=stage.id)


def _payload(stage: _Stage, **what: Any) -> Body:
    common = {
        "team": {"id": stage.team},
        "user": {"id": stage.user, "team_id": stage.team},
        "api_app_id": stage.app,
        "trigger_id": f"{stage.ts}.{stage.team}",
    }
    return FORM, urlencode({"payload": json.dumps({**common, **what})})


def _button(stage: _Stage, delivery: Delivery) -> Body:
    """Press a button of the message that the line quotes, or of one that nobody knows."""
    message_ts = (delivery.quoted or stage.ts).rpartition(":")[2]
    named = delivery.external_id.split(":")
    action = {
        "type": "button",
        "action_id": named[3] if len(named) == 5 else "choice",  # noqa: PLR2004 - team, channel, message, action, time
        "block_id": "choices",
        "value": delivery.button,
        "text": {"type": "plain_text", "text": escaped(delivery.text)},
        "action_ts": stage.ts,
    }
    message = {"ts": message_ts, **({"thread_ts": stage.thread} if stage.thread else {})}
    container = {"type": "message", "message_ts": message_ts, "channel_id": stage.channel}
    channel = {"id": stage.channel}
    return _payload(
        stage, type="block_actions", channel=channel, container=container, message=message, actions=[action]
    )


def _form(stage: _Stage, delivery: Delivery) -> Body:
    """Send a form, with texts in its fields."""
    view_id, _, version = stage.id.partition(":")
    values = {
        block: {name: {"type": "plain_text_input", "value": value} for name, value in elements.items()}
        for block, elements in delivery.parts["view"].get("values", {}).items()
    }
    view = {
        "id": view_id,
        "hash": version,
        "callback_id": delivery.button or "",
        "private_metadata": json.dumps(delivery.route or {}),
        "state": {"values": values},
    }
    return _payload(stage, type="view_submission", view=view)


def _command(stage: _Stage, delivery: Delivery) -> Body:
    command, _, text = delivery.text.partition(" ")
    form = {
        "team_id": stage.team,
        "channel_id": stage.channel,
        "user_id": stage.user,
        "command": command,
        "text": escaped(text),
        "trigger_id": stage.id,
        "api_app_id": stage.app,
    }
    return FORM, urlencode(form, errors="surrogatepass")
