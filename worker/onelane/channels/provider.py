"""What every provider's adapter speaks: a webhook as it came in, its answer, and the bounds of its fields."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from onelane.errors import BadRequest
from onelane.model import Accepted, Delivery

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
ID_MAX = 256
SENDER_MAX = 256
TEXT_MAX = 32_768
BUTTON_MAX = 256
CONTENT_TYPE_MAX = 256
URL_MAX = 4_096
ATTACHMENTS_MAX = 32


@dataclass(frozen=True, slots=True)
class Inbound:
    """A webhook as it came in, before anything in it is believed."""

    url: str
    """The address the provider called, query included; some sign it."""
    headers: Mapping[str, str]
    """Names in lower case."""
    content_type: str
    """Without parameters, in lower case."""
    body: bytes

    def header(self, name: str) -> str:
        """Return a header, or an empty string when it is missing."""
        return self.headers.get(name.lower(), "")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider is told."""

    status: int
    content_type: str
    body: str


@dataclass(frozen=True, slots=True)
class Signed:
    """A webhook as the provider would post it."""

    headers: Mapping[str, str]
    body: bytes


class Provider(Protocol):
    """Speaks one provider's language.

    A POST is verified, parsed, accepted, answered. One that holds no message (a status report, a handshake)
    parses to an empty list and is answered all the same.
    """

    def verify(self, request: Inbound) -> None:
        """Raise Unsupported for a foreign content type, BadSignature unless the provider sent this."""

    def parse(self, request: Inbound) -> list[Delivery]:
        """Return the messages of a verified request; raise BadRequest when it cannot be understood."""

    def answer(self, accepted: Sequence[Accepted]) -> Answer:
        """Word the answer to a request whose messages are committed."""

    def sign(self, url: str, delivery: Delivery) -> Signed:
        """Play the provider: word and sign `delivery` for `url`, with the newest secret."""


def _storable(text: str) -> str:
    """Refuse what Postgres cannot hold: stored, it would poison the lane."""
    if UNSTORABLE.search(text):
        raise ValueError("must not contain NUL characters or lone surrogates")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _visible(text: str) -> str:
    if not (1 <= len(text) <= ID_MAX and all("!" <= letter <= "~" for letter in text)):
        raise ValueError(f"must be 1 to {ID_MAX} visible ASCII characters")
    return text


def _web_address(text: str) -> str:
    """Refuse other schemes: the address may one day be a link on an operator's page."""
    if not text.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return text


Storable = Annotated[str, AfterValidator(_storable)]
ExternalId = Annotated[str, AfterValidator(_visible)]
Sender = Annotated[Storable, Field(max_length=SENDER_MAX), AfterValidator(_not_blank)]
Text = Annotated[Storable, Field(max_length=TEXT_MAX)]
Button = Annotated[Storable, Field(max_length=BUTTON_MAX)]
Url = Annotated[Storable, Field(max_length=URL_MAX), AfterValidator(_web_address)]
ContentType = Annotated[Storable, Field(max_length=CONTENT_TYPE_MAX)]


class Incoming(BaseModel):
    """The fields of a provider's message. Unknown ones are ignored: providers add fields without asking."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Model = TypeVar("Model", bound=Incoming)


def checked(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Build `model`, or raise a BadRequest worded `field: what is allowed`, without repeating the value."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    raise BadRequest(field, problem["msg"].removeprefix("Value error, "))
