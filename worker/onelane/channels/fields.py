"""The fields of settings and messages that adapters share, with their bounds.

An adapter imports this module, and names the fields as `fields.Text`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from onelane.deliveries import Delivery, Item, Quarantined
from onelane.errors import BadRequest
from onelane.model import JsonObject
from onelane.problems import first_problem
from onelane.storable import is_storable, storable

ID_MAX = 256
SECRET_MIN = 16
"""Shorter ones are guessed, or were cut when they were copied."""
PLACEHOLDER = "replace this"
"""How the secrets of .env.example begin."""
SENDER_MAX = 256
TEXT_MAX = 32_768
BUTTON_MAX = 256
CONTENT_TYPE_MAX = 256
URL_MAX = 4_096
ATTACHMENTS_MAX = 32
RAW_MAX_BYTES = 16_384


class ProviderSettings(BaseModel):
    """A provider's own settings in a channel's configuration. Unknown ones are refused: they are misspelt."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _storable(text: str) -> str:
    """Refuse what Postgres cannot hold: stored, it would poison the lane."""
    if not is_storable(text):
        raise ValueError("must not contain NUL characters or lone surrogates")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def is_visible(text: str) -> bool:
    """Whether a text can be a provider's id of something."""
    return 1 <= len(text) <= ID_MAX and all("!" <= letter <= "~" for letter in text)


def _visible(text: str) -> str:
    if not is_visible(text):
        raise ValueError(f"must be 1 to {ID_MAX} visible ASCII characters")
    return text


def _web_address(text: str) -> str:
    """Refuse other schemes: the address may become a link on an operator's page."""
    if not text.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return text


def _usable(secret: SecretStr) -> SecretStr:
    """Refuse what no provider signs with: blanks and line ends come from copying."""
    text = secret.get_secret_value()
    if PLACEHOLDER in text:
        raise ValueError("is the example's own: put the provider's in its place")
    if not (text and all("!" <= letter <= "~" for letter in text)):
        raise ValueError("must be visible ASCII characters, without blanks and line ends")
    if len(text) < SECRET_MIN:
        raise ValueError(f"must be at least {SECRET_MIN} characters")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_usable)]
A_FEW = Field(min_length=1, max_length=8)
Secrets = Annotated[tuple[Secret, ...], A_FEW]
"""Signing secrets, newest first: all of them verify, so that one can be rotated."""
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
    """Build `model`, or raise a BadRequest that names the field and what is allowed there, without its value."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = first_problem(error)
    raise BadRequest(".".join(problem.path), problem.message)


def only_delivery(item: Item) -> Delivery:
    """Return `item` if it is a delivery; raise BadRequest for what a provider without such items never sends."""
    if not isinstance(item, Delivery):
        raise BadRequest("", f"this provider sends no {type(item).__name__}")
    return item


def understood(read: Callable[[], Iterable[Item]]) -> list[Item]:
    """Return what `read` makes of one part of a webhook, or that the part goes into quarantine.

    `read` raises BadRequest for what it does not understand; what it made of the part before does not count.
    """
    try:
        return list(read())
    except BadRequest as problem:
        return [Quarantined(str(problem))]


def bounded(raw: JsonObject) -> JsonObject | None:
    """Return the provider's own object as Postgres can hold it, or None if it is larger than RAW_MAX_BYTES as JSON."""
    return _cleaned(raw) if len(json.dumps(raw)) <= RAW_MAX_BYTES else None


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(key): _cleaned(inner) for key, inner in value.items()}
    return [_cleaned(inner) for inner in value] if isinstance(value, list) else value
