"""What a bot says: one message to the user, in no provider's words."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final
from uuid import uuid4

from pydantic import AfterValidator, BeforeValidator, ValidationError

from onelane.errors import BadResult
from onelane.model import CONTENT_TYPE, Attachment, Button, JsonObject, Upload, Value
from onelane.problems import first_problem
from onelane.storable import is_storable

REPLIES_MAX: Final = 100
"""Of one turn, also when a provider needs several messages for one Reply."""
BUTTONS_MAX: Final = 100
BUTTON_ID_MAX: Final = 2_000
BUTTON_TITLE_MAX: Final = 1_000
MEDIA_MAX: Final = 30
UPLOADS_MAX_BYTES: Final = 16 * 2**20
"""Of one turn."""
FILE_NAME_MAX: Final = 200
QUOTE_MAX: Final = 1_000
ADDRESSES: Final = ("http://", "https://")


Media = Attachment | Upload


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("must hold no NUL character, and no half of a character (a lone surrogate)")
    return text


def _button(value: Any) -> Any:
    if not isinstance(value, Button):
        raise ValueError("must be a Button: Button(id=…, title=…)")  # noqa: TRY004 - pydantic words it
    _storable(value.id + value.title)
    if not (0 < len(value.id) <= BUTTON_ID_MAX and 0 < len(value.title) <= BUTTON_TITLE_MAX):
        raise ValueError(f"must have an id of 1 to {BUTTON_ID_MAX} characters and a title of 1 to {BUTTON_TITLE_MAX}")
    return value


def _file(media: Any) -> Any:
    if isinstance(media, Upload):
        return _upload(media)
    if not isinstance(media, Attachment):
        raise ValueError("must be an Attachment(url=…) or an Upload(data=…, name=…, content_type=…)")  # noqa: TRY004 - as above
    if media.file or not (media.url or media.id):
        raise ValueError("must have a url, or the id of a file that the provider has")
    if media.url and not media.url.startswith(ADDRESSES):
        raise ValueError("url must begin with https:// or http://")
    return media


def _upload(media: Upload) -> Upload:
    if not 0 < len(media.data) <= UPLOADS_MAX_BYTES:
        raise ValueError(f"data must be 1 to {UPLOADS_MAX_BYTES} bytes")
    if not (0 < len(_storable(media.name)) <= FILE_NAME_MAX and media.name.isprintable()):
        raise ValueError(f"name must be 1 to {FILE_NAME_MAX} characters that can be seen")
    if not CONTENT_TYPE.fullmatch(media.content_type):
        raise ValueError("content_type must be like image/png, in lower case")
    return media


def _few_buttons(buttons: tuple[Button, ...]) -> tuple[Button, ...]:
    if len(buttons) > BUTTONS_MAX:
        raise ValueError(f"must be at most {BUTTONS_MAX}")
    return buttons


def _few_media(media: tuple[Media, ...]) -> tuple[Media, ...]:
    if len(media) > MEDIA_MAX:
        raise ValueError(f"must be at most {MEDIA_MAX}")
    return media


def _quote(quote: str) -> str:
    if not 0 < len(quote) <= QUOTE_MAX:
        raise ValueError(f"must be an id of 1 to {QUOTE_MAX} characters")
    return quote


Text = Annotated[str, AfterValidator(_storable)]


class Reply(Value):
    """One message to the user. What its provider has no form for, or too little room, becomes several or fails."""

    text: Text = ""
    buttons: Annotated[tuple[Annotated[Button, BeforeValidator(_button)], ...], AfterValidator(_few_buttons)] = ()
    """Below the text; a numbered list where the provider has no such buttons."""
    media: Annotated[tuple[Annotated[Media, BeforeValidator(_file)], ...], AfterValidator(_few_media)] = ()
    """By address, by the id of a file that the provider has, or by their bytes."""
    template: JsonObject | None = None
    """In the provider's own words. It stands alone."""
    quote: Annotated[Text, AfterValidator(_quote)] | None = None
    """The provider's id of the message that it answers: `turn.message.external_id`."""
    raw: JsonObject | None = None
    """The provider's own fields, laid over ours."""

    def __init__(
        self,
        text: str = "",
        *,
        buttons: Iterable[Button] = (),
        media: Iterable[Media] = (),
        template: JsonObject | None = None,
        quote: str | None = None,
        raw: JsonObject | None = None,
    ) -> None:
        """Raise BadResult for what nobody could send; it names the field, and what is allowed there."""
        said = {"text": text, "buttons": buttons, "media": media, "template": template, "quote": quote, "raw": raw}
        try:
            super().__init__(**said)
        except ValidationError as error:
            raise BadResult(f"Reply.{first_problem(error)}") from None

    def renewed(self) -> "Reply":
        """Return it with new ids for its files: a bot may send the same Upload again and again."""
        if not any(isinstance(one, Upload) for one in self.media):
            return self
        media = (one.model_copy(update={"id": uuid4()}) if isinstance(one, Upload) else one for one in self.media)
        return self.model_copy(update={"media": tuple(media)})

    def said(self) -> JsonObject:
        """Return what it says, without what is left open and without the bytes of files."""
        media = [one.described() if isinstance(one, Upload) else one for one in self.media]
        said: JsonObject = {
            "buttons": [one.model_dump() for one in self.buttons],
            "media": [one.model_dump(mode="json", exclude_none=True) for one in media],
            "template": self.template,
            "quote": self.quote,
            "raw": self.raw,
        }
        return {"text": self.text, **{name: value for name, value in said.items() if value}}


Replies = str | Reply | Sequence[str | Reply] | None
"""What a handler returns."""


def all_of(replies: Any) -> list[Reply]:
    """Return a handler's replies; raise BadResult for what is none."""
    return [_reply(one) for one in _each(replies)]


def uploads_in(replies: Iterable[Reply]) -> dict[str, str]:
    """Return the bytes of the replies' files, in base64 and by their ids; raise BadResult for too many."""
    uploads = [one for reply in replies for one in reply.media if isinstance(one, Upload)]
    if (size := sum(len(one.data) for one in uploads)) > UPLOADS_MAX_BYTES:
        raise BadResult(f"the files of a turn may have {UPLOADS_MAX_BYTES} bytes, not {size}: send some by address")
    return {str(one.id): b64encode(one.data).decode() for one in uploads}


def _each(replies: Any) -> Sequence[Any]:
    if replies is None:
        return ()
    if isinstance(replies, str | Reply):
        return (replies,)
    if isinstance(replies, list | tuple) and len(replies) <= REPLIES_MAX:
        return replies
    raise BadResult(
        f"a handler returns str, Reply, a list of at most {REPLIES_MAX} of them, or None; not {type(replies).__name__}"
    )


def _reply(one: Any) -> Reply:
    if isinstance(one, Reply):
        return one.renewed()
    if isinstance(one, str):
        return Reply(one)
    raise BadResult(f"a reply is str or Reply, not {type(one).__name__}")
