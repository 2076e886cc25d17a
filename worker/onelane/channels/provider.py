"""What an adapter is: it verifies, parses and answers the webhooks of one provider. It does no input and no output."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from onelane.channels.fields import ProviderSettings
from onelane.channels.sender import Sender
from onelane.deliveries import Accepted, Delivery, Item
from onelane.errors import BadRequest, Unsupported
from onelane.model import Attachment, JsonObject


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
class Parsed:
    """What a verified webhook holds."""

    items: Sequence[Item] = ()
    """In the provider's order."""
    answer: Answer | None = None
    """To be answered so, in place of `Provider.answer`: a challenge."""

    @property
    def deliveries(self) -> list[Delivery]:
        """The messages, events and echoes among its items."""
        return [item for item in self.items if isinstance(item, Delivery)]


@dataclass(frozen=True, slots=True)
class Signed:
    """A webhook as the provider would post it."""

    headers: Mapping[str, str]
    body: bytes
    query: str = ""
    """What is appended to the channel's address, with its question mark; the signature covers it where it counts."""

    def received(self, url: str) -> Inbound:
        """Return it as it is received at `url`."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        return Inbound(url + self.query, headers, content_type, self.body)


@dataclass(frozen=True, slots=True)
class Persona:
    """How the provider would name somebody in a conversation with the bot: for trying a bot without an account."""

    senders: tuple[str, ...]
    """Preferred first."""
    conversation: str | None = None
    route: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class FileRequest:
    """One GET on the way to a file."""

    url: str = field(repr=False)
    """https, at one of `hosts`. Some hold the token."""
    hosts: tuple[str, ...]
    """The provider's own: the address must be at one of them, or below one that begins with a dot, over https.

    One that names its scheme, as `http://127.0.0.1:8081`, allows just that: for a `base_url` that somebody configured.
    """
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """With the token: they go to no other host."""


FileSteps = Generator[FileRequest, bytes, None]
"""The GETs that lead to a file, each sent the body of the one before; the last one's body is the file."""


class Provider(ABC):
    """The adapter of one provider, made from its own settings.

    A POST is verified, parsed, accepted, answered.
    """

    settings_model: ClassVar[type[ProviderSettings]]
    redelivers: ClassVar[bool] = True
    """Whether the provider delivers again what was answered with an error."""
    has_statuses: ClassVar[bool] = False
    """Whether its webhooks also say what became of replies."""
    signed_by: ClassVar[tuple[str, ...]] = ()
    """Headers without which a request is not signed, in lower case: it is refused before its body is read."""
    body_max_bytes: ClassVar[int] = 3 * 2**20
    """What it never sends more of: a larger body is refused unread."""

    @abstractmethod
    def __init__(self, settings: Any) -> None:
        """Take an instance of `settings_model`."""

    def handshake(self, request: Inbound) -> Answer:  # noqa: ARG002 - most have none
        """Answer a GET with which the provider makes sure whose address this is.

        Raise Unsupported if it has none, BadHandshake for whoever does not know what was agreed.
        """
        raise Unsupported("this address takes POST")

    @abstractmethod
    def verify(self, request: Inbound) -> None:
        """Raise Unsupported for a foreign content type, BadSignature unless the provider sent this.

        What is cheap to see is refused first: nobody knows yet who asks.
        """

    @abstractmethod
    def parse(self, request: Inbound) -> Parsed:
        """Return what a verified request holds. What is not understood is Quarantined, and its neighbours stand."""

    @abstractmethod
    def answer(self, accepted: Sequence[Accepted]) -> Answer:
        """Return the answer to a request whose deliveries are committed; it may hold none."""

    @abstractmethod
    def persona(self, name: str) -> Persona:
        """Name somebody as the provider would; the same name is always the same person."""

    @abstractmethod
    def sign(self, url: str, item: Item) -> Signed:
        """Make the request with which the provider would deliver `item` to `url`, signed with the newest secret.

        A Delivery, an IdentityChange or a Status, where it has such; raise BadRequest for what it never sends.
        """

    def sign_all(self, url: str, items: Sequence[Item]) -> list[Signed]:
        """Make the requests with which the provider would deliver `items`, in order: as few as it would make."""
        return [self.sign(url, item) for item in items]

    def file(self, attachment: Attachment) -> FileSteps:  # noqa: ARG002 - as handshake
        """Lead to a user's file, step by step; raise BadRequest for what is none of the provider's."""
        raise BadRequest("attachment", "cannot be fetched: this provider has no files of its own")

    def ways(self, name: str) -> Sequence[Sequence[str]]:
        """Return how its webhooks name a user: each way is parts that are somewhere in the body, all of them."""
        return [(name,)]

    @property
    def sender(self) -> Sender | None:
        """What sends replies; None where the settings name no way to."""
        return None
