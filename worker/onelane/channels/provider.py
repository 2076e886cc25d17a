"""What an adapter is: it verifies, parses and answers the webhooks of one provider."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from onelane.channels.fields import ProviderSettings
from onelane.model import Accepted, Delivery


@dataclass(frozen=True, slots=True)
class Inbound:
    """A webhook as it was received, before it is verified."""

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
    """The HTTP answer to the provider."""

    status: int
    content_type: str
    body: str


@dataclass(frozen=True, slots=True)
class Signed:
    """A webhook as the provider would post it."""

    headers: Mapping[str, str]
    body: bytes


class Provider(Protocol):
    """The adapter of one provider, made from its own settings.

    A POST is verified, parsed, accepted, answered. One that holds no message (a status report, a handshake)
    parses to an empty list and is answered all the same.
    """

    settings_model: ClassVar[type[ProviderSettings]]

    def __init__(self, settings: Any) -> None:
        """Take an instance of `settings_model`."""

    def verify(self, request: Inbound) -> None:
        """Raise Unsupported for a foreign content type, BadSignature unless the provider sent this."""

    def parse(self, request: Inbound) -> list[Delivery]:
        """Return the messages of a verified request; raise BadRequest when it cannot be understood."""

    def answer(self, accepted: Sequence[Accepted]) -> Answer:
        """Return the answer to a request whose messages are committed."""

    def sign(self, url: str, delivery: Delivery) -> Signed:
        """Make the request with which the provider would deliver `delivery` to `url`, signed with the newest secret."""
