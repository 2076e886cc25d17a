"""Twilio's Messages: they are taken at once, and looked up in a list; nothing says that two of them are the same."""

import re
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import ClassVar, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from onelane.model import JsonObject
from onelane.testing.fake_providers.api import Api, Call, Message
from onelane.testing.fake_providers.http import Answer, Request, answer_of

ACCOUNT: Final = re.compile(r"/2010-04-01/Accounts/(AC[0-9a-f]{32})(/Messages(/(\w+))?)?\.json")
TYPING: Final = "/v2/Indicators/Typing.json"
ADDRESS: Final = re.compile(r"(\w+:)?[+\w.-]{3,160}")
TEXT_MAX: Final = 1_600
PAGE_MAX: Final = 1_000
PAGE: Final = 50
SERVICE_NUMBER: Final = "+15550100"
STATUSES: Final[Mapping[int, int]] = {20003: 401, 20404: 404, 20429: 429, 63018: 429, 63017: 429, 20500: 500}
"""HTTP's status by Twilio's code, where it is not 400. (From memory.)"""


class Twilio(Api):
    """The API of an account."""

    has_statuses: ClassVar[bool] = True

    def read(self, request: Request) -> Call | Answer:
        """Take the login, then what the path names."""
        found = ACCOUNT.fullmatch(request.path)
        if not self._may(request):
            return self.refusal("20003")
        if request.path == TYPING and request.method == "POST":
            values = request.values()
            text = str(values.get("messageId", ""))
            return Call("presence", text=text, kind="typing", answer=answer_of({"success": True}))
        if found is None or (self.own.get("account_sid") or found[1]) != found[1]:
            return self.refusal("20404")
        if request.method == "POST":
            return self._send(request) if found[2] and not found[3] else self.refusal("20404")
        return self._looked_up(found, request)

    def refusal(self, code: str) -> Answer:
        """Write an error as the REST API does."""
        number = int(code)
        status = STATUSES.get(number, 400)
        more = f"https://www.twilio.com/docs/errors/{number}"
        return answer_of({"code": number, "message": "refused", "more_info": more, "status": status}, status)

    def limit(self, wait_s: float) -> Answer:
        """Say that the account asks too much."""
        answer = self.refusal("20429")
        return Answer(answer.status, answer.body, headers={"Retry-After": f"{wait_s:g}"})

    def accepted(self, message: Message) -> Answer:
        """Say that it is queued."""
        return answer_of({**self._shown(message), "status": "queued"}, 201)

    def new_id(self, call: Call) -> str:
        """Make a sid."""
        return f"{'MM' if call.kind == 'media' else 'SM'}{self.number():032x}"

    def status_address(self, message: Message, webhook: str) -> str | None:  # noqa: ARG002 - it comes with each message
        """Return the address that came with the message, without the reply's id, which the adapter adds again."""
        given = message.call.values.get("StatusCallback")
        return given.partition("?")[0] if given else None

    def _may(self, request: Request) -> bool:
        """Whether the login is the API key's, or the account's own."""
        kind, _, login = request.headers.get("authorization", "").partition(" ")
        try:
            name, _, secret = b64decode(login, validate=True).decode().partition(":")
        except ValueError:
            return False
        key = (self.own.get("api_key"), self.own.get("api_secret"))
        is_account = name.startswith("AC") and secret in self.own.get("secrets", ())
        return kind == "Basic" and (is_account or ((name, secret) == key and None not in key))

    def _send(self, request: Request) -> Call | Answer:
        values = request.values()
        user, text = values.get("To", ""), values.get("Body", "")
        has_content = text or values.get("MediaUrl") or values.get("ContentSid")
        if not ADDRESS.fullmatch(user):
            return self.refusal("21211")
        if not (values.get("From") or values.get("MessagingServiceSid")):
            return self.refusal("21603")
        if not has_content:
            return self.refusal("21602")
        if len(text) > TEXT_MAX:
            return self.refusal("21617")
        return Call("send", user, _key(values), text, "media" if values.get("MediaUrl") else "text", values)

    def _looked_up(self, found: re.Match[str], request: Request) -> Call | Answer:
        _account, messages, _slash, sid = found.groups()
        if sid:
            message = self.find(sid)
            if message is None:
                return self.refusal("20404")
            return Call("look_up", message.call.user, answer=answer_of(self._shown(message)))
        if messages:
            return Call("look_up", request.query.get("To", ""), answer=answer_of(self._page(request)))
        return Call("other", answer=answer_of({"sid": found[1], "status": "active"}))

    def _page(self, request: Request) -> JsonObject:
        """List the messages that fit, newest first."""
        query = request.query
        size, page = min(int(query.get("PageSize", PAGE)), PAGE_MAX), int(query.get("Page", 0))
        fitting = [message for message in self.kept(query.get("To")) if _fits(message, query)]
        shown = fitting[page * size : (page + 1) * size]
        following = f"/{self.name}{request.path}?{urlencode({**query, 'Page': page + 1})}"
        return {
            "messages": list(map(self._shown, shown)),
            "page": page,
            "page_size": size,
            "next_page_uri": following if len(fitting) > (page + 1) * size else None,
        }

    def _shown(self, message: Message) -> JsonObject:
        values, at = message.call.values, format_datetime(datetime.fromtimestamp(int(message.at), UTC))
        return {
            "sid": message.provider_id,
            "account_sid": self.own.get("account_sid"),
            "messaging_service_sid": values.get("MessagingServiceSid"),
            "to": message.call.user,
            "from": values.get("From") or SERVICE_NUMBER,
            "body": message.call.text,
            "num_media": str(int("MediaUrl" in values)),
            "status": "sent",
            "direction": "outbound-api",
            "date_created": at,
            "date_sent": at,
            "date_updated": at,
            "error_code": None,
            "error_message": None,
        }


def _key(values: JsonObject) -> str | None:
    """Read the reply's id out of the address for statuses."""
    return parse_qs(urlsplit(values.get("StatusCallback", "")).query).get("reply", [None])[0]


def _fits(message: Message, query: Mapping[str, str]) -> bool:
    """Whether a list with these parameters has the message."""
    sent, values = datetime.fromtimestamp(int(message.at), UTC), message.call.values
    since, until, on = (_instant(query.get(name)) for name in ("DateSent>", "DateSent<", "DateSent"))
    return (
        query.get("From") in {None, values.get("From", SERVICE_NUMBER)}
        and (since is None or sent >= since)
        and (until is None or sent <= until)
        and (on is None or sent.date() == on.date())
    )


def _instant(text: str | None) -> datetime | None:
    """Read a day, or a time; without an offset it is UTC."""
    if not text:
        return None
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
