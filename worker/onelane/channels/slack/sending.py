"""Slack's sending side: one post a message, with the reply's id as `client_msg_id` and in its metadata.

Where no answer came, the channel's or the thread's history shows whether a post with that id is there.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from pydantic import SecretStr

from onelane.channels.sender import OnUnknown, Sender
from onelane.channels.sending import LookUp, Outgoing, Piece, Request, Sign, SignKind, Uploading, fields_of, laid_over
from onelane.channels.slack.codes import meaning_of
from onelane.channels.slack.places import DIRECT, escaped, key_of
from onelane.channels.slack.settings import SlackSettings
from onelane.channels.slack.uploading import uploaded
from onelane.channels.verdicts import (
    TOO_MANY,
    Response,
    Unsendable,
    Verdict,
    Word,
    absent,
    accepted,
    too_many,
    unknown,
)
from onelane.model import Attachment, AttachmentKind, Button, JsonObject

WITHIN: Final = re.compile(r"([CG][A-Z0-9]{1,63}):(?:([0-9]{1,12}\.[0-9]{1,9})|[UW][A-Z0-9]{1,63})")
"""A conversation in a channel: a thread, or what is of one person."""
CHANNEL: Final = re.compile(rf"[CG{DIRECT}][A-Z0-9]{{1,63}}")
PERSON: Final = re.compile(r"[TE][A-Z0-9]{1,63}:[UW][A-Z0-9]{1,63}")
PEOPLE: Final = ("U", "W")
EVENT_TYPE: Final = "onelane_reply"
BUTTONS_MAX: Final = 25
BUTTON_TITLE_MAX: Final = 75
BUTTON_VALUE_MAX: Final = 2_000
PAGES_MAX: Final = 5
PAGE_SIZE: Final = "100"
SKEW: Final = timedelta(seconds=30)
OK: Final = 200


class SlackSender(Sender):
    """Posts as one app."""

    on_unknown: ClassVar[OnUnknown] = OnUnknown.ASK
    typing_every_s: ClassVar[float | None] = 90
    uploads: ClassVar[bool] = True
    text_max: ClassVar[int] = 4_000
    caption_max: ClassVar[int] = 3_000
    captioned: ClassVar[frozenset[AttachmentKind]] = frozenset({AttachmentKind.IMAGE})
    buttoned_max: ClassVar[int] = 3_000

    def __init__(self, settings: SlackSettings, token: SecretStr) -> None:
        """Take the settings and the token among them."""
        self._settings = settings
        self._headers = {"Authorization": f"Bearer {token.get_secret_value()}"}

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return self._settings.base_url

    def check(self, said: Piece) -> None:
        """Take images by address or id, and other files by address: they become links."""
        if said.template is not None:
            raise Unsendable(Word.BAD_CONTENT, "Slack has no templates")
        if not all(one.url or one.file or (one.id and one.kind is AttachmentKind.IMAGE) for one in said.media):
            raise Unsendable(Word.BAD_CONTENT, "media must have an address or bytes; an image may have a file's id")

    def has(self, buttons: Sequence[Button]) -> bool:
        """Take as many as fit in a row of Slack's."""
        return 0 < len(buttons) <= BUTTONS_MAX and all(
            0 < self.size(one.title) <= BUTTON_TITLE_MAX and 0 < len(one.id) <= BUTTON_VALUE_MAX for one in buttons
        )

    def size(self, text: str) -> int:
        """Count a text as it is sent."""
        return super().size(escaped(text))

    def upload(self, described: Attachment, data: bytes, out: Outgoing) -> Uploading | None:  # noqa: ARG002 - as above
        """Upload a file (`files:write`)."""
        return uploaded(described, data, self._settings.base_url, self._headers)

    def request(self, out: Outgoing) -> Request:
        """Write a post: in the thread of the route, else below the quoted message, else in the channel."""
        channel, thread = _place(out)
        fixed = {
            "channel": channel,
            **({"thread_ts": thread} if thread else {}),
            "client_msg_id": str(out.key),
            "metadata": {"event_type": EVENT_TYPE, "event_payload": {"key": str(out.key)}},
        }
        return self._post("chat.postMessage", laid_over(_content(out.piece), out.piece.raw, fixed))

    def judge(self, out: Outgoing, response: Response) -> Verdict:
        """Take the post's ts, or look the error up."""
        if response.status == TOO_MANY:
            return too_many(response)
        content = response.content()
        if response.status != OK:
            return unknown(response.status)
        if content.get("ok") is True:
            return _posted(out, content.get("channel"), content.get("ts"))
        error = content.get("error") if content.get("ok") is False else None
        if isinstance(error, str) and (meaning := meaning_of(error)):
            return meaning.verdict(error, response.retry_after_s())
        return unknown(error)

    def word_of(self, code: str) -> Word | None:
        """Return our word for an error."""
        meaning = meaning_of(code)
        return meaning.word if meaning else None

    def look_up(self, out: Outgoing, since: datetime, others: Mapping[str, str]) -> LookUp | None:  # noqa: ARG002 - by id
        """Read the thread, or the channel, since then. A person's id names no channel that can be read."""
        try:
            channel, thread = _place(out)
        except Unsendable:
            return None
        if channel.startswith(PEOPLE):
            return None
        query = {
            "channel": channel,
            **({"ts": thread} if thread else {}),
            "oldest": f"{(since - SKEW).timestamp():.6f}",
            "inclusive": "true",
            "include_all_metadata": "true",
            "limit": PAGE_SIZE,
        }
        return self._pages(out, "conversations.replies" if thread else "conversations.history", query)

    def presence(self, sign: Sign) -> Request | None:
        """Show in a thread that the app is thinking: until it answers, or for two minutes."""
        route = sign.route or {}
        channel, thread = route.get("channel"), route.get("thread_ts")
        if not (channel and thread and sign.kind is SignKind.TYPING):
            return None
        content = {"channel_id": channel, "thread_ts": thread, "status": self._settings.thinking}
        return self._post("assistant.threads.setStatus", content)

    def probe(self) -> Request | None:
        """Ask who the token is."""
        return self._post("auth.test", {})

    def _pages(self, out: Outgoing, method: str, query: Mapping[str, str]) -> LookUp:
        cursor: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            address = f"{self._settings.base_url}/{method}"
            response = yield Request.get(method, address, {**query, **cursor}, self._headers)
            page = response.content()
            messages = page.get("messages")
            if response.status != OK or page.get("ok") is not True or not isinstance(messages, list):
                return unknown(page.get("error") or response.status)
            for message in messages:
                if isinstance(message, dict) and _is_ours(message, str(out.key)):
                    return _posted(out, query["channel"], message.get("ts"))
            following = fields_of(page.get("response_metadata")).get("next_cursor")
            if not (isinstance(following, str) and following):
                return unknown() if page.get("has_more") is True else absent()
            cursor = {"cursor": following}
        return unknown()

    def _post(self, method: str, content: JsonObject) -> Request:
        headers = {"Content-Type": "application/json; charset=utf-8", **self._headers}
        return Request.json(method, f"{self._settings.base_url}/{method}", content, headers)


def _place(out: Outgoing) -> tuple[str, str | None]:
    """Name the channel and the thread; in a channel without one, a quoted message begins one."""
    if channel := out.way("channel"):
        return channel, out.way("thread_ts") or _quoted_ts(out.piece.quote)
    for alias in out.to:
        if within := WITHIN.fullmatch(alias):
            return within[1], within[2] or _quoted_ts(out.piece.quote)
    direct = next((one for one in out.to if CHANNEL.fullmatch(one)), None)
    # Slack takes a person's id for the direct channel to them.
    person = next((one.partition(":")[2] for one in out.to if PERSON.fullmatch(one)), None)
    if channel := direct or person:
        return channel, _quoted_ts(out.piece.quote)
    raise Unsendable(Word.NO_ROUTE, "neither a channel nor a person is known")


def _quoted_ts(quote: str | None) -> str | None:
    """Return a message's ts, out of the id that our webhooks give it."""
    ts = (quote or "").rpartition(":")[2]
    return ts if ts.replace(".", "", 1).isdecimal() else None


def _content(piece: Piece) -> JsonObject:
    text = escaped(piece.text)
    image = next((one for one in piece.media if one.kind is AttachmentKind.IMAGE), None)
    link = next((_link(one) for one in piece.media if one is not image), "")
    text = "\n".join(filter(None, (text, link)))
    blocks: list[JsonObject] = [_image(image)] if image else []
    if text and (blocks or piece.buttons):
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text}})
    if piece.buttons:
        elements = [_button(number, one) for number, one in enumerate(piece.buttons, 1)]
        blocks.append({"type": "actions", "elements": elements})
    shown: dict[str, Any] = {"text": text or (_name(image) if image else "")}
    return {name: value for name, value in {**shown, "blocks": blocks}.items() if value}


def _image(image: Attachment) -> JsonObject:
    where: JsonObject = {"slack_file": {"id": image.id}} if image.id else {"image_url": image.url}
    return {"type": "image", **where, "alt_text": _name(image)}


def _name(media: Attachment) -> str:
    return media.name or str(media.kind)


def _link(media: Attachment) -> str:
    address = escaped(media.url or "").replace("|", "%7C")
    return f"<{address}|{escaped(_name(media)).replace('|', ' ')}>"


def _button(number: int, button: Button) -> JsonObject:
    title = {"type": "plain_text", "text": button.title}
    return {"type": "button", "action_id": f"button-{number}", "text": title, "value": button.id}


def _is_ours(message: JsonObject, key: str) -> bool:
    metadata = fields_of(message.get("metadata"))
    in_metadata = (
        metadata.get("event_type") == EVENT_TYPE and fields_of(metadata.get("event_payload")).get("key") == key
    )
    return in_metadata or message.get("client_msg_id") == key


def _posted(out: Outgoing, channel: Any, ts: Any) -> Verdict:
    """Name a post as our webhooks do."""
    if not (isinstance(channel, str) and channel and isinstance(ts, str) and _quoted_ts(ts)):
        return unknown()
    return accepted(key_of(*filter(None, (out.way("team"), channel, ts))))
