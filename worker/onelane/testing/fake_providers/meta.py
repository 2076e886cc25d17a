"""Meta's WhatsApp Cloud API: messages, seen and typing, files. It has no way to ask what became of a message."""

import re
from collections.abc import Mapping
from typing import ClassVar, Final

from onelane.model import JsonObject
from onelane.testing.fake_providers.api import Api, Call, Message
from onelane.testing.fake_providers.http import Answer, Request, answer_of

MESSAGES: Final = re.compile(r"/v\d+\.\d+/(\d+)/messages")
MEDIA: Final = re.compile(r"/v\d+\.\d+/(\d+)/media")
NODE: Final = re.compile(r"/v\d+\.\d+/([A-Za-z0-9_-]+)")
TEXT_MAX: Final = 4_096
CALLBACK_DATA_MAX: Final = 512
INTERACTIVE_MAX: Final = 1_024
BUTTONS_MAX: Final = 3
TITLE_MAX: Final = 20
STATUSES: Final[Mapping[int, int]] = {
    429: 429, 4: 429, 80007: 429, 130429: 429, 131056: 400, 131048: 400, 131064: 400,
    131000: 500, 131016: 500, 131057: 500, 133004: 503, 2: 503, 1: 500,
    0: 401, 3: 403, 10: 403, 190: 401, 200: 403, 299: 403, 368: 403, 131005: 403, 131031: 403,
}  # fmt: skip
"""HTTP's status by Meta's code, where it is not 400. (From memory.)"""


class Meta(Api):
    """The API of a number."""

    has_statuses: ClassVar[bool] = True

    def read(self, request: Request) -> Call | Answer:
        """Take the token, then what the path names."""
        if request.headers.get("authorization") != f"Bearer {self.own.get('access_token')}":
            return self.refusal("190")
        if found := MESSAGES.fullmatch(request.path):
            return self._messages_of(found[1], request)
        if MEDIA.fullmatch(request.path) and request.method == "POST":
            return Call("media", answer=answer_of({"id": str(self.number())}))
        if (found := NODE.fullmatch(request.path)) and request.method == "GET":
            return Call("other", answer=answer_of({"id": found[1], "display_phone_number": "15550100"}))
        return self.refusal("100")

    def refusal(self, code: str) -> Answer:
        """Write an error as the Graph API does."""
        number = int(code)
        error = {
            "message": f"(#{number}) refused",
            "type": "OAuthException",
            "code": number,
            "error_data": {"messaging_product": "whatsapp", "details": "refused by the fake provider"},
            "fbtrace_id": f"F{self.number()}",
        }
        return answer_of({"error": error}, STATUSES.get(number, 400))

    def limit(self, wait_s: float) -> Answer:
        """Say that the number sends too much; Meta gives no time."""
        answer = self.refusal("130429")
        return Answer(answer.status, answer.body, headers={"Retry-After": f"{wait_s:g}"})

    def accepted(self, message: Message) -> Answer:
        """Name the person and the message."""
        values = message.call.values
        contact = {"input": message.call.user, "wa_id": values.get("to"), "user_id": values.get("recipient")}
        return answer_of(
            {
                "messaging_product": "whatsapp",
                "contacts": [{name: value for name, value in contact.items() if value}],
                "messages": [{"id": message.provider_id, "message_status": "accepted"}],
            }
        )

    def new_id(self, call: Call) -> str:  # noqa: ARG002 - Meta's say nothing
        """Make a wamid."""
        return f"wamid.{self.number()}"

    def _messages_of(self, number_id: str, request: Request) -> Call | Answer:
        own_id = self.own.get("phone_number_id")
        values = request.json()
        if request.method != "POST" or (own_id and own_id != number_id):
            return self.refusal("100")
        if values.get("messaging_product") != "whatsapp":
            return self.refusal("100")
        if values.get("status") == "read":
            kind = "typing" if "typing_indicator" in values else "seen"
            return Call("presence", text=str(values.get("message_id")), kind=kind, answer=answer_of({"success": True}))
        return self._send(values)

    def _send(self, values: JsonObject) -> Call | Answer:
        user, kind = values.get("to") or values.get("recipient"), values.get("type", "text")
        key, content = values.get("biz_opaque_callback_data"), values.get(kind)
        if not user or not isinstance(content, dict | list) or len(key or "") > CALLBACK_DATA_MAX:
            return self.refusal("131008")
        if kind == "text" and not 1 <= len(content.get("body", "")) <= TEXT_MAX:  # type: ignore[union-attr]
            return self.refusal("100")
        if kind == "interactive" and not _is_interactive(content):  # type: ignore[arg-type]
            return self.refusal("131009")
        return Call("send", str(user), key, _text(content), kind, values)


def _is_interactive(content: JsonObject) -> bool:
    buttons = content.get("action", {}).get("buttons", [])
    titles = [button.get("reply", {}).get("title", "") for button in buttons]
    return (
        1 <= len(content.get("body", {}).get("text", "")) <= INTERACTIVE_MAX
        and len(buttons) <= BUTTONS_MAX
        and all(1 <= len(title) <= TITLE_MAX for title in titles)
    )


def _text(content: JsonObject | list[JsonObject]) -> str:
    """Return what is to be read of it."""
    if isinstance(content, list):
        return ""
    body = content.get("body", content.get("caption", content.get("name", "")))
    return str(body.get("text", "") if isinstance(body, dict) else body)
