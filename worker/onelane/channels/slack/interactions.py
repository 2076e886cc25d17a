"""What Slack posts as a form: pressed buttons, sent forms, shortcuts, slash commands."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from pydantic import Field

from onelane.channels import fields
from onelane.channels.bodies import json_object, repaired
from onelane.channels.slack.choices import chosen, filled, label
from onelane.channels.slack.places import TEXT_MAX, Id, Place, Text, Ts, instant, key_of, raw_of, thread_in
from onelane.deliveries import Delivery, Ignored, Item, Kind
from onelane.errors import BadRequest
from onelane.model import JsonObject

FIELDS_MAX: Final = 100
ACTIONS_MAX: Final = 100
"""Slack sends one, or few."""
BUTTON_MAX: Final = 3_000
"""Slack takes 2,000 characters of a button, and 3,000 that are typed into a field."""
HAPPENINGS: Final = frozenset({"shortcut", "message_action", "view_closed"})
ASKED: Final = frozenset({"block_suggestion", "dialog_suggestion"})
"""They want choices at once, which no queued turn can give."""

Name = Annotated[fields.Storable, Field(max_length=256)]


class _HasId(fields.Incoming):
    id: Id


class _User(_HasId):
    team_id: Id | None = None
    username: Name | None = None
    name: Name | None = None


class _Container(fields.Incoming):
    message_ts: Ts | None = None
    thread_ts: Ts | None = None
    is_ephemeral: bool | None = None


class _Message(fields.Incoming):
    ts: Ts | None = None
    thread_ts: Ts | None = None


class _View(fields.Incoming):
    id: Id
    hash: fields.ExternalId | None = None
    callback_id: Name = ""
    private_metadata: str | None = None
    state: dict[str, Any] | None = None


class _Payload(fields.Incoming):
    type: str
    user: _User
    team: _HasId | None = None
    enterprise: _HasId | None = None
    channel: _HasId | None = None
    container: _Container = _Container()
    message: _Message = _Message()
    view: _View | None = None
    callback_id: Name = ""
    trigger_id: fields.ExternalId | None = None
    actions: Annotated[tuple[dict[str, Any], ...], Field(max_length=ACTIONS_MAX)] = ()

    @property
    def team_id(self) -> str:
        """The workspace in which it was done; an app of a whole organisation may have that alone."""
        named = self.team or self.enterprise
        if team := named.id if named else self.user.team_id:
            return team
        raise BadRequest("team", "is missing")

    @property
    def message_ts(self) -> str | None:
        """The message that it is about."""
        return self.container.message_ts or self.message.ts

    def where(self) -> list[str]:
        """Name the message or the form that it is about."""
        if self.channel and self.message_ts:
            return [self.channel.id, self.message_ts]
        return [self.view.id] if self.view else []

    @property
    def quoted(self) -> str | None:
        """Name the message as its own line would be named."""
        return key_of(self.team_id, *self.where()) if self.channel and self.message_ts else None

    def needed_view(self) -> _View:
        """Return the form."""
        if self.view is None:
            raise BadRequest("view", "is missing")
        return self.view

    def place(self) -> Place:
        """Tell where it was done: at a message, or where the form's private_metadata says, or nowhere."""
        name = self.user.name or self.user.username
        if self.channel is None:
            route = _remembered(self.view.private_metadata if self.view else None)
            channel = route.channel if route.channel != self.user.id else None
            return Place(self.team_id, channel, self.user.id, route.thread_ts, name)
        thread = self.container.thread_ts or self.message.thread_ts
        if self.message_ts and not self.container.is_ephemeral:
            thread = thread_in(self.channel.id, thread, self.message_ts)
        return Place(self.team_id, self.channel.id, self.user.id, thread, name)


class _Action(fields.Incoming):
    type: Name = ""
    action_id: Name
    block_id: Name = ""
    action_ts: Ts


class _Command(fields.Incoming):
    team_id: Id
    channel_id: Id
    user_id: Id
    user_name: Name | None = None
    command: Annotated[Name, Field(pattern="^/")]
    text: Text = ""
    trigger_id: fields.ExternalId


class _Route(fields.Incoming):
    channel: Id | None = None
    thread_ts: Ts | None = None


def read(body: bytes) -> Iterable[Item]:
    """Make lines of a form."""
    form, repairs = repaired(_form(body))
    if "payload" in form:
        payload, inner = repaired(json_object(form["payload"]))
        return _interaction(payload, tuple(sorted({*repairs, *inner})))
    if "command" in form:
        return [_command(form, repairs)]
    if "ssl_check" in form:
        return [Ignored("ssl_check")]
    raise BadRequest("body", "must have payload or command")


def _form(body: bytes) -> dict[str, str]:
    try:
        text = body.decode("utf-8", "surrogateescape")
        pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=FIELDS_MAX)
    except ValueError:
        raise BadRequest("body", f"must be a form of at most {FIELDS_MAX} fields") from None
    if len(form := dict(pairs)) < len(pairs):
        raise BadRequest("body", "a field is given twice")
    return form


def _command(form: dict[str, str], repairs: tuple[str, ...]) -> Item:
    command = fields.checked(_Command, form)
    return Delivery(
        external_id=command.trigger_id,
        text=f"{command.command} {command.text}".rstrip(),
        closes=True,
        raw=raw_of(form),
        repairs=repairs,
        **Place(command.team_id, command.channel_id, command.user_id, user_name=command.user_name).line(),
    )


def _interaction(raw: JsonObject, repairs: tuple[str, ...]) -> Iterator[Item]:
    kind = raw.get("type")
    if isinstance(kind, str) and kind in ASKED:
        yield Ignored(kind)
        return
    payload = fields.checked(_Payload, raw)
    common: JsonObject = {"raw": raw_of(raw), "repairs": repairs, **payload.place().line()}
    if payload.type == "block_actions":
        yield from () if payload.actions else (Ignored("no_action"),)
        for action in payload.actions:
            yield from fields.understood(partial(_pressed, payload, action, common))
    elif payload.type == "view_submission":
        yield _submitted(payload, common)
    elif payload.type in HAPPENINGS:
        yield _happened(payload, common)
    else:
        raise BadRequest("type", "is unknown")


def _pressed(payload: _Payload, original: JsonObject, common: JsonObject) -> Iterator[Item]:
    """Tell one button or choice. `button` is its value, or its name where it has several or none."""
    action = fields.checked(_Action, original)
    value = chosen(original)
    parts = {"action": {"id": action.action_id, "block": action.block_id, "type": action.type, "value": value}}
    yield Delivery(
        external_id=key_of(payload.team_id, *payload.where(), action.action_id, action.action_ts),
        text=label(original)[:TEXT_MAX],
        button=value if isinstance(value, str) and value and len(value) <= BUTTON_MAX else action.action_id,
        closes=True,
        parts=parts,
        quoted=payload.quoted,
        sent_at=instant(action.action_ts),
        **common,
    )


def _submitted(payload: _Payload, common: JsonObject) -> Item:
    """Tell a sent form. `button` is its callback_id; what was filled in is in the parts."""
    view = payload.needed_view()
    return Delivery(
        external_id=key_of(view.id, view.hash or ""),
        button=view.callback_id or None,
        closes=True,
        parts={"view": {"callback_id": view.callback_id, "values": filled(view.state)}},
        **common,
    )


def _happened(payload: _Payload, common: JsonObject) -> Item:
    """Tell a shortcut, or a form that was closed."""
    view = payload.view
    external_id = payload.trigger_id or (key_of(view.id, view.hash or "", "closed") if view else None)
    if external_id is None:
        raise BadRequest("trigger_id", "is missing")
    callback_id = view.callback_id if view else payload.callback_id
    return Delivery(
        external_id=external_id,
        kind=Kind.EVENT,
        event="service",
        parts={"service": {"what": payload.type, "callback_id": callback_id}},
        quoted=payload.quoted,
        **common,
    )


def _remembered(private_metadata: str | None) -> _Route:
    """Read a line's route that the bot put into a form, so that what is sent returns to its conversation."""
    try:
        return fields.checked(_Route, json_object(private_metadata or ""))
    except BadRequest:
        return _Route()
