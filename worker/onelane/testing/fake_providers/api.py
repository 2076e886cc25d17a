"""What a provider's sending API is, as its fake: it reads a request, refuses it or keeps a message, and answers."""

import time
from abc import ABC, abstractmethod
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

from onelane.channels import Provider, provider_of
from onelane.config import Channel
from onelane.deliveries import Delivery
from onelane.model import JsonObject, uuid_or_none
from onelane.testing.fake_providers.faults import What
from onelane.testing.fake_providers.http import Answer, Request

MESSAGES_MAX = 200_000
"""What a look-up can find; older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for."""

    what: What
    user: str = ""
    """For whom, as the API names a conversation."""
    key: str | None = None
    """The reply's id, where the API carries one."""
    text: str = ""
    kind: str = "text"
    values: JsonObject = field(default_factory=dict)
    answer: Answer | None = None
    """Of what is no send."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that the provider has taken."""

    provider_id: str
    call: Call
    at: float

    @property
    def uuid(self) -> UUID | None:
        """The reply's id, if it is one."""
        return uuid_or_none(self.call.key or "")


class Api(ABC):
    """The sending API of one channel."""

    has_statuses: ClassVar[bool] = False

    def __init__(self, name: str, channel: Channel) -> None:
        """Take the channel as the service knows it: tokens and secrets are checked against it."""
        self.name = name
        self.provider_name = channel.provider
        self.adapter: Provider = provider_of(channel)
        self.own: dict[str, Any] = channel.own
        self._last = 0
        self._messages: OrderedDict[str, Message] = OrderedDict()
        self._by_user: defaultdict[str, deque[Message]] = defaultdict(deque)

    @abstractmethod
    def read(self, request: Request) -> Call | Answer:
        """Read a request; an Answer is its refusal: a wrong token, a wrong body, nobody's address."""

    @abstractmethod
    def refusal(self, code: str) -> Answer:
        """Refuse with one of the provider's own codes."""

    @abstractmethod
    def limit(self, wait_s: float) -> Answer:
        """Refuse, since it is too much."""

    @abstractmethod
    def accepted(self, message: Message) -> Answer:
        """Answer a send."""

    @abstractmethod
    def new_id(self, call: Call) -> str:
        """Name a new message."""

    def repeated(self, call: Call) -> Message | None:  # noqa: ARG002 - most providers do not see it
        """Find the message that this send repeats, where the provider sees that."""
        return None

    def post(self, call: Call) -> Message:
        """Take a message."""
        message = Message(self.new_id(call), call, time.time())
        self._messages[message.provider_id] = message
        self._by_user[call.user].append(message)
        if len(self._messages) > MESSAGES_MAX:
            _, oldest = self._messages.popitem(last=False)
            self._by_user[oldest.call.user].popleft()
            if not self._by_user[oldest.call.user]:
                del self._by_user[oldest.call.user]
        return message

    def status_address(self, message: Message, webhook: str) -> str | None:  # noqa: ARG002 - most have one for all
        """Return where this message's statuses are posted, as the provider knows the address: what is signed."""
        return webhook if self.has_statuses else None

    def echo(self, message: Message) -> Delivery | None:  # noqa: ARG002 - most have none
        """Return the event with which the provider reports our own message to us."""
        return None

    def number(self) -> int:
        """Return a new number: microseconds since 1970, or a little more, so that a later run goes on above."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last

    def kept(self, user: str | None = None) -> Iterator[Message]:
        """Go through what was taken, for one user or for all, newest first."""
        return reversed(self._messages.values() if user is None else self._by_user.get(user, ()))

    def find(self, provider_id: str) -> Message | None:
        """Find a message."""
        return self._messages.get(provider_id)
