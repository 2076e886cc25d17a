"""What sends a channel's replies: it takes them apart, writes requests and reads answers, without input and output."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Final

from onelane.channels.sending import LookUp, Outgoing, Piece, Request, Sign, Uploading
from onelane.channels.splitting import split, utf16
from onelane.channels.verdicts import Response, Unsendable, Verdict, Word
from onelane.model import Attachment, AttachmentKind, Button, JsonObject

if TYPE_CHECKING:
    from httpx2 import AsyncBaseTransport

PIECES_MAX: Final = 100
FULL: Final[frozenset[AttachmentKind]] = frozenset({AttachmentKind.IMAGE, AttachmentKind.VIDEO, AttachmentKind.FILE})
"""Files with which most providers show a text."""


class OnUnknown(StrEnum):
    """What becomes of a reply of which nobody knows whether it was sent."""

    ASK = "ask"
    RESEND = "resend"
    LEAVE = "leave"


class Sender(ABC):
    """The sending side of one provider, made where its settings allow it to send."""

    on_unknown: ClassVar[OnUnknown] = OnUnknown.LEAVE
    absent_after_s: ClassVar[float] = 10
    """How long after the request a look-up's `absent` can be believed: before, the request may still be at work."""
    typing_every_s: ClassVar[float | None] = None
    """How often a TYPING sign must be repeated; None: there is none."""
    uploads: ClassVar[bool] = False
    """Whether it hands files over before a reply, rather than with it."""
    text_max: ClassVar[int]
    """Of one request, in the provider's own count."""
    caption_max: ClassVar[int] = 0
    captioned: ClassVar[frozenset[AttachmentKind]] = FULL
    """Files that can have a text of up to `caption_max`."""
    buttoned_max: ClassVar[int] = 0
    """Of a text with buttons."""

    @property
    def transport(self) -> "AsyncBaseTransport | None":
        """What carries its requests; None: the net."""
        return None

    @property
    def base_url(self) -> str | None:
        """Where its requests go, without any secret; None: nowhere outside this process."""
        return None

    def pieces(self, said: Piece) -> list[Piece]:
        """Take a reply apart: one piece a request. Raise Unsendable for what the provider has no form for.

        Buttons that the provider has not become a numbered list.
        """
        self.check(said)
        if said.template is not None:
            if said.text or said.buttons or said.media:
                raise Unsendable(Word.BAD_CONTENT, "a template stands alone: without text, buttons and media")
            return [said]
        if self.size(said.text) > PIECES_MAX * self.text_max:
            raise _too_long()
        found = self._said(said)
        if not found:
            if said.raw is None:
                raise Unsendable(Word.BAD_CONTENT, "an empty reply cannot be sent")
            found = [Piece()]
        if len(found) > PIECES_MAX:
            raise _too_long()
        if said.quote is not None:
            found[0] = found[0].model_copy(update={"quote": said.quote})
        if said.raw is not None:
            found[-1] = found[-1].model_copy(update={"raw": said.raw})
        return found

    @abstractmethod
    def check(self, said: Piece) -> None:
        """Raise Unsendable for files and templates that the provider has no form for."""

    def has(self, buttons: Sequence[Button]) -> bool:  # noqa: ARG002 - the least that a provider can
        """Whether the provider can show these buttons."""
        return False

    def size(self, text: str) -> int:
        """Count a text as the provider's limits do: the sum of its letters."""
        return utf16(text)

    def upload(self, described: Attachment, data: bytes, out: Outgoing) -> Uploading | None:  # noqa: ARG002 - as has
        """Hand a file to the provider before the reply; None: its bytes go with the request. See `Outgoing.files`."""
        return None

    @abstractmethod
    def request(self, out: Outgoing) -> Request:
        """Write the request; raise Unsendable where nothing says to whom."""

    @abstractmethod
    def judge(self, out: Outgoing, response: Response) -> Verdict:
        """Read the answer. It raises nothing: what it does not know is unknown."""

    @abstractmethod
    def word_of(self, code: str) -> Word | None:
        """Return our word for the code of a `failed` status, if it is known."""

    def look_up(self, out: Outgoing, since: datetime, others: Mapping[str, str]) -> LookUp | None:  # noqa: ARG002 - as has
        """Ask for a reply whose request began at `since`; None: nobody can be asked.

        `others` are the texts of the user's other replies of late, by the provider's ids.
        """
        return None

    def presence(self, sign: Sign) -> Request | None:  # noqa: ARG002 - as has
        """Write the request that shows a sign, if there is one."""
        return None

    def acknowledge(self, route: JsonObject | None) -> Request | None:  # noqa: ARG002 - as has
        """Write the request that ends what a pressed button shows while it waits, if its message's route is such."""
        return None

    def probe(self) -> Request | None:
        """Write a harmless request that succeeds where the token is right, if there is one: see `is_well`."""
        return None

    def is_well(self, response: Response) -> bool:
        """Whether the answer to a probe says that all is well."""
        return response.is_success and response.content().get("ok", True) is True

    def window_s(self, to: Sequence[str]) -> int | None:  # noqa: ARG002 - as has
        """Return how long after the user's last message anything but a template is taken; None: always."""
        return None

    def _said(self, said: Piece) -> list[Piece]:
        buttons = said.buttons if self.has(said.buttons) else ()
        text = said.text if buttons else numbered(said.text, said.buttons)
        if not buttons and len(said.media) == 1 and self._is_caption(text, said.media[0]):
            return [Piece(text=text, media=said.media)]
        texts = [Piece(text=part) for part in self._parts(text, is_buttoned=bool(buttons))]
        if buttons:
            if not texts:
                raise Unsendable(Word.BAD_CONTENT, "buttons need a text")
            texts[-1] = texts[-1].model_copy(update={"buttons": buttons})
        return [*(Piece(media=(one,)) for one in said.media), *texts]

    def _is_caption(self, text: str, media: Attachment) -> bool:
        return media.kind in self.captioned and self.size(text) <= self.caption_max

    def _parts(self, text: str, *, is_buttoned: bool) -> list[str]:
        """Split a text, without parts that show nothing: providers refuse those."""
        parts = _visible(split(text, self.text_max, self.size))
        if parts and is_buttoned:
            parts[-1:] = _visible(split(parts[-1], self.buttoned_max, self.size))
        return parts


def _too_long() -> Unsendable:
    return Unsendable(Word.TOO_LONG, f"a reply must not need more than {PIECES_MAX} messages")


def _visible(parts: Sequence[str]) -> list[str]:
    return [part for part in parts if part.strip()]


def numbered(text: str, buttons: Sequence[Button]) -> str:
    """Write buttons as a numbered list below a text."""
    lines = "\n".join(f"{number}. {button.title}" for number, button in enumerate(buttons, 1))
    return "\n\n".join(filter(None, (text, lines)))
