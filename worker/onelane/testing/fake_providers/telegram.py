"""Telegram's Bot API: no key, no status, no way to ask. Who sends again shows the message again."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from onelane.model import JsonObject
from onelane.testing.fake_providers.api import Api, Call, Message
from onelane.testing.fake_providers.http import Answer, Request, answer_of

METHOD: Final = re.compile(r"/bot([^/]+)/(\w+)")
FILE: Final = re.compile(r"/file/bot([^/]+)/([\w./-]+)")
TEXT_MAX: Final = 4_096
CAPTION_MAX: Final = 1_024
FILES: Final = {
    f"send{name}": name.lower() for name in ("Photo", "Video", "Audio", "Voice", "Document", "Animation", "Sticker")
}
"""What each method sends: the argument of the same name has the file, its id or its address."""
SENDS: Final = FILES | {"sendMessage": "text", "sendMediaGroup": "media"}
SIGNS: Final = {
    "sendChatAction": "typing",
    "answerCallbackQuery": "answered",
    "readBusinessMessage": "seen",
    "sendMessageDraft": "draft",
}
PHRASES: Final[Mapping[int, str]] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


class Telegram(Api):
    """The API of a bot."""

    def read(self, request: Request) -> Call | Answer:
        """Take the token, which is in the path, then the method."""
        path = unquote(request.path)
        if found := FILE.fullmatch(path):
            content = Answer(200, f"the content of {found[2]}".encode(), "application/octet-stream")
            return Call("media", answer=content) if found[1] == self.own.get("bot_token") else self.refusal("404")
        if not (found := METHOD.fullmatch(path)):
            return self.refusal("404")
        if found[1] != self.own.get("bot_token"):
            return self.refusal("401")
        return self._called(found[2], request.values())

    def refusal(self, code: str) -> Answer:
        """Write an error: `403`, or `400: chat not found`, or `migrate: -100…`, the chat's new number."""
        number, _, why = code.partition(": ")
        if number == "migrate":
            return _error(400, "group chat was upgraded to a supergroup chat", migrate_to_chat_id=int(why))
        return _error(int(number), why)

    def limit(self, wait_s: float) -> Answer:
        """Say that it is too much."""
        return _error(429, f"retry after {wait_s:g}", retry_after=int(wait_s) if wait_s == int(wait_s) else wait_s)

    def accepted(self, message: Message) -> Answer:
        """Show the message as it stands in the chat."""
        shown = {
            "message_id": int(message.provider_id),
            "date": int(message.at),
            "chat": {"id": int(message.call.values["chat_id"]), "type": "private"},
            "text": message.call.text,
        }
        return _result([shown] if message.call.kind == "media" else shown)

    def new_id(self, call: Call) -> str:  # noqa: ARG002 - a number for every message
        """Give it the next number."""
        return str(self.number())

    def _called(self, method: str, values: JsonObject) -> Call | Answer:
        if method in SIGNS:
            text = str(values.get("action") or values.get("callback_query_id") or values.get("text") or "")
            return Call("presence", _user(values), text=text, kind=SIGNS[method], answer=_result(True))
        if method.startswith("send"):
            return self._send(SENDS.get(method, method.removeprefix("send").lower()), values)
        if method == "getMe":
            token = str(self.own.get("bot_token"))
            me = {"id": int(token.partition(":")[0]), "is_bot": True, "first_name": "Bot", "username": "onelane_bot"}
            return Call("other", answer=_result(me))
        if method == "getFile":
            file_id = str(values.get("file_id"))
            file = {"file_id": file_id, "file_unique_id": file_id, "file_size": 1, "file_path": f"files/{file_id}"}
            return Call("media", answer=_result(file))
        return self.refusal("404")

    def _send(self, kind: str, values: JsonObject) -> Call | Answer:
        text = str(values.get("text") or values.get("caption") or "")
        if not values.get("chat_id"):
            return self.refusal("400: chat_id is empty")
        if kind == "text" and not text.strip():
            return self.refusal("400: message text is empty")
        if len(text) > (TEXT_MAX if kind == "text" else CAPTION_MAX):
            return self.refusal("400: message is too long" if kind == "text" else "400: message caption is too long")
        if kind in FILES.values() and not values.get(kind):
            return self.refusal(f"400: there is no {kind} in the request")
        return Call("send", _user(values), None, text, kind, values)


def _result(result: object) -> Answer:
    return answer_of({"ok": True, "result": result})


def _error(number: int, why: str, **parameters: float) -> Answer:
    phrase = PHRASES.get(number, "Error")
    error = {"ok": False, "error_code": number, "description": f"{phrase}: {why}" if why else phrase}
    return answer_of({**error, **({"parameters": parameters} if parameters else {})}, number)


def _user(values: JsonObject) -> str:
    """Name the conversation: a chat, or a topic of it."""
    topic = values.get("message_thread_id") or values.get("direct_messages_topic_id")
    return f"{values.get('chat_id')}:{topic}" if topic else str(values.get("chat_id", ""))
