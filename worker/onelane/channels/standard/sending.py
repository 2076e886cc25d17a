"""The sending side of `standard`: a signed POST to an address of yours, whose `webhook-id` is the reply's id.

The same id comes again when a reply is repeated, and the receiver drops what it has: so nothing is ever uncertain.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import ClassVar

from standardwebhooks import Webhook

from onelane.channels import fields
from onelane.channels.sender import OnUnknown, Sender
from onelane.channels.sending import Outgoing, Piece, Request, laid_over
from onelane.channels.standard.codes import CODES
from onelane.channels.verdicts import Response, Unsendable, Verdict, Word, accepted, unknown
from onelane.model import Attachment, AttachmentKind, Button, JsonObject


def _now() -> datetime:
    return datetime.now(UTC)


class StandardSender(Sender):
    """Posts replies to `reply_url`."""

    on_unknown: ClassVar[OnUnknown] = OnUnknown.RESEND
    text_max: ClassVar[int] = 1_000_000
    caption_max: ClassVar[int] = 1_000_000
    captioned: ClassVar[frozenset[AttachmentKind]] = frozenset(AttachmentKind)
    buttoned_max: ClassVar[int] = 1_000_000

    def __init__(self, reply_url: str, secret: str, now: Callable[[], datetime] = _now) -> None:
        """Take the address, and the secret that signs."""
        self._url, self._webhook, self._now = reply_url, Webhook(secret), now

    @property
    def base_url(self) -> str | None:
        """Where replies are posted."""
        return self._url

    def check(self, said: Piece) -> None:
        """Take everything."""

    def has(self, buttons: Sequence[Button]) -> bool:
        """Take all buttons."""
        return bool(buttons)

    def pieces(self, said: Piece) -> list[Piece]:
        """Take a reply as it is: the receiver may show it as it likes."""
        if said == Piece(quote=said.quote):
            raise Unsendable(Word.BAD_CONTENT, "an empty reply cannot be sent")
        return [said]

    def request(self, out: Outgoing) -> Request:
        """Write and sign a reply, as of now."""
        piece, key, now = out.piece, str(out.key), self._now()
        content = {
            "text": piece.text,
            "buttons": [one.model_dump() for one in piece.buttons],
            "attachments": [_attachment(one, out) for one in piece.media],
            "template": piece.template,
            "reply_to": piece.quote,
        }
        fixed = {"type": "reply", "key": key, "senders": list(out.to), **({"route": out.route} if out.route else {})}
        said = {name: value for name, value in content.items() if value}
        body = json.dumps(laid_over(said, piece.raw, fixed))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": key,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(key, now, body),
        }
        return Request("reply", "POST", self._url, headers, body.encode())

    def judge(self, out: Outgoing, response: Response) -> Verdict:
        """Take any success; the receiver may name the reply by an `id` of its own."""
        if response.is_success:
            given = response.content().get("id")
            return accepted(given if isinstance(given, str) and fields.is_visible(given) else str(out.key))
        if meaning := CODES.get(str(response.status)):
            return meaning.verdict(response.status, response.retry_after_s())
        return unknown(response.status)

    def word_of(self, code: str) -> Word | None:
        """Return our word for a status of HTTP."""
        return CODES[code].word if code in CODES else None


def _attachment(media: Attachment, out: Outgoing) -> JsonObject:
    """Describe a file; one of the bot's own comes with its bytes."""
    described = media.model_dump(mode="json", exclude_none=True)
    if media.file and media.file in out.files:
        described |= {"data": b64encode(out.files[media.file]).decode()}
        del described["file"]
    return described
