"""Slack's Web API: messages that carry our id twice, and their history, where it can be found again."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from onelane.config import Channel
from onelane.deliveries import Delivery, Kind
from onelane.model import JsonObject, uuid_or_none
from onelane.testing.fake_providers.api import MESSAGES_MAX, Api, Call, Message
from onelane.testing.fake_providers.http import Answer, Request, answer_of

TEXT_MAX: Final = 40_000
PAGE_MAX: Final = 999
PAGE: Final = 100
TEAM: Final = "T0ONELANE"
BOT: Final = {"user": "U0ONELANE", "bot_id": "B0ONELANE", "type": "message"}
Duplicates = Literal["same", "refused", "shown"]


class Slack(Api):
    """The API of an app."""

    def __init__(self, name: str, channel: Channel) -> None:
        """Take the channel. What Slack does with a known client_msg_id is not documented: `duplicates` decides."""
        super().__init__(name, channel)
        self.duplicates: Duplicates = "same"
        self._by_client_id: dict[tuple[str, str], Message] = {}
        self._methods: Mapping[str, Callable[[JsonObject], Call | Answer]] = {
            "/chat.postMessage": self._post_message,
            "/conversations.history": self._history,
            "/conversations.replies": self._replies,
            "/assistant.threads.setStatus": self._set_status,
            "/files.completeUploadExternal": self._completed,
            "/auth.test": lambda _: Call("other", answer=_ok(team_id=TEAM, user_id=BOT["user"])),
        }

    def read(self, request: Request) -> Call | Answer:
        """Take the token, then the method."""
        if request.path.startswith("/upload/") and request.method == "POST":
            return Call("media", answer=Answer(200, f"OK - {len(request.body)}".encode(), "text/plain"))
        values = request.values()
        given = request.headers.get("authorization", "") or f"Bearer {values.get('token', '')}"
        if given == "Bearer ":
            return self.refusal("not_authed")
        if given != f"Bearer {self.own.get('bot_token')}":
            return self.refusal("invalid_auth")
        if request.path == "/files.getUploadURLExternal":
            return self._upload_address(request.headers.get("host", ""), values)
        method = self._methods.get(request.path)
        return method(values) if method else self.refusal("unknown_method")

    def refusal(self, code: str) -> Answer:
        """Write an error as Slack does: HTTP says 200."""
        return self.limit(1) if code == "ratelimited" else answer_of({"ok": False, "error": code})

    def limit(self, wait_s: float) -> Answer:
        """Say that this method is called too often."""
        return answer_of({"ok": False, "error": "ratelimited"}, 429, Retry_After=f"{wait_s:g}")

    def repeated(self, call: Call) -> Message | None:
        """Find the message with the same client_msg_id in the channel."""
        if self.duplicates == "shown":
            return None
        return self._by_client_id.get((call.values.get("channel", ""), call.values.get("client_msg_id", "")))

    def post(self, call: Call) -> Message:
        """Take a message, and remember its client_msg_id."""
        message = super().post(call)
        if client_id := call.values.get("client_msg_id"):
            self._by_client_id[call.values["channel"], client_id] = message
        if len(self._by_client_id) > MESSAGES_MAX:
            del self._by_client_id[next(iter(self._by_client_id))]
        return message

    def accepted(self, message: Message) -> Answer:
        """Name the channel and the message."""
        channel = message.call.values.get("channel") or message.call.values.get("channel_id")
        if message.call.kind == "file":
            return _ok(files=message.call.values["files"])
        return _ok(channel=channel, ts=message.provider_id, message=_shown(message, with_metadata=True))

    def new_id(self, call: Call) -> str:  # noqa: ARG002 - it is a time
        """Make a `ts` that no other message has."""
        number = self.number()
        return f"{number // 1_000_000}.{number % 1_000_000:06}"

    def echo(self, message: Message) -> Delivery:
        """Report the app's own post: Slack sends everything that is said in a channel."""
        values = message.call.values
        return Delivery(
            senders=(f"{TEAM}:{BOT['user']}",),
            external_id=f"{TEAM}:{values['channel']}:{message.provider_id}",
            kind=Kind.ECHO,
            text=message.call.text,
            route={"team": TEAM, "channel": values["channel"], "thread_ts": values.get("thread_ts")},
        )

    def _post_message(self, values: JsonObject) -> Call | Answer:
        text = str(values.get("text") or values.get("markdown_text") or "")
        if not values.get("channel"):
            return self.refusal("channel_not_found")
        if not (text or values.get("blocks")):
            return self.refusal("no_text")
        if len(text) > TEXT_MAX:
            return self.refusal("msg_too_long")
        metadata = _object(values.get("metadata"))
        key = values.get("client_msg_id") or _id_in(metadata.get("event_payload", {}))
        kind = "blocks" if values.get("blocks") else "text"
        call = Call("send", _user(values, "channel"), key, text, kind, {**values, "metadata": metadata})
        is_refused = self.duplicates == "refused" and self.repeated(call)
        return self.refusal("duplicate_message_not_found") if is_refused else call

    def _history(self, values: JsonObject) -> Call | Answer:
        """List what stands in a channel itself, newest first."""
        channel = str(values.get("channel"))
        return self._listed(channel, [*self.kept(channel)], values)

    def _replies(self, values: JsonObject) -> Call | Answer:
        """List a thread, oldest first."""
        channel, ts = values.get("channel"), str(values.get("ts"))
        root = self.find(ts)
        found = [*self.kept(f"{channel}:{ts}"), *([root] if root and root.call.user == channel else [])]
        return self._listed(f"{channel}:{ts}", found[::-1], values)

    def _listed(self, user: str, messages: list[Message], values: JsonObject) -> Call:
        oldest, latest = float(values.get("oldest") or 0), float(values.get("latest") or 10**11)
        has_metadata = str(values.get("include_all_metadata", "")).lower() in {"1", "true"}
        fitting = [one for one in messages if oldest <= float(one.provider_id) <= latest]
        limit, start = min(int(values.get("limit") or PAGE), PAGE_MAX), int(values.get("cursor") or 0)
        page, has_more = fitting[start : start + limit], len(fitting) > start + limit
        shown = [_shown(one, with_metadata=has_metadata) for one in page]
        cursor = str(start + limit) if has_more else ""
        answer = _ok(messages=shown, has_more=has_more, response_metadata={"next_cursor": cursor})
        return Call("look_up", user, answer=answer)

    def _set_status(self, values: JsonObject) -> Call | Answer:
        if not (values.get("channel_id") and values.get("thread_ts")):
            return self.refusal("invalid_arguments")
        return Call(
            "presence", _user(values, "channel_id"), text=str(values.get("status")), kind="typing", answer=_ok()
        )

    def _upload_address(self, host: str, values: JsonObject) -> Call:
        file_id = f"F{self.number()}"
        address = f"http://{host}/{self.name}/upload/{file_id}"
        return Call("media", kind=str(values.get("filename")), answer=_ok(upload_url=address, file_id=file_id))

    def _completed(self, values: JsonObject) -> Call | Answer:
        """Share uploaded files in a channel: a send, without an id of ours. Without one they stay private."""
        files, text = values.get("files"), str(values.get("initial_comment") or "")
        files = json.loads(files) if isinstance(files, str) else files
        if not files:
            return self.refusal("invalid_arguments")
        if not values.get("channel_id"):
            linked = [{**one, "permalink": f"https://onelane.slack.com/files/{one['id']}"} for one in files]
            return Call("media", answer=_ok(files=linked))
        channel = {"channel": values["channel_id"], "files": files}
        return Call("send", _user(values, "channel_id"), None, text, "file", {**values, **channel})


def _ok(**content: Any) -> Answer:
    return answer_of({"ok": True, **content})


def _user(values: JsonObject, channel: str) -> str:
    thread = values.get("thread_ts")
    return f"{values[channel]}:{thread}" if thread else str(values[channel])


def _shown(message: Message, *, with_metadata: bool) -> JsonObject:
    given = message.call.values
    shown = {name: given[name] for name in ("thread_ts", "client_msg_id", "blocks", "files") if given.get(name)}
    metadata = {"metadata": given["metadata"]} if with_metadata and given.get("metadata") else {}
    return {**BOT, "ts": message.provider_id, "text": message.call.text, **shown, **metadata}


def _object(given: Any) -> JsonObject:
    """Read an argument that is JSON, or a text of it."""
    found = json.loads(given) if isinstance(given, str) and given else given
    return found if isinstance(found, dict) else {}


def _id_in(payload: JsonObject) -> str | None:
    return next((value for value in payload.values() if isinstance(value, str) and uuid_or_none(value)), None)
