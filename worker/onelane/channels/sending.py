"""What is sent: what a reply says, to whom, and the request that it becomes."""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from onelane.channels.verdicts import Response, Verdict
from onelane.model import CONTENT_TYPE, Attachment, Button, JsonObject, Value

FORM: Final = "application/x-www-form-urlencoded"


class Piece(Value):
    """What a reply says; after `Sender.pieces`, what one request says."""

    text: str = ""
    buttons: tuple[Button, ...] = ()
    media: tuple[Attachment, ...] = ()
    """By address, or by the provider's id of an upload."""
    template: JsonObject | None = None
    """In the provider's own words. It stands alone."""
    quote: str | None = None
    """The provider's id of the message that it answers, as webhooks gave it; ignored where nothing can be quoted."""
    raw: JsonObject | None = None
    """The provider's own fields, laid over ours: all but those that say to whom, and which reply it is."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A reply on its way: one piece, one request, one key."""

    key: UUID
    to: tuple[str, ...] = field(repr=False)
    """The user's aliases, preferred first."""
    piece: Piece = field(repr=False)
    route: JsonObject | None = field(default=None, repr=False)
    """The way back, as the user's newest message gave it."""
    attempt: int = 1
    """The number of this request for the same reply."""
    callback_url: str | None = None
    """The public address of the channel's webhooks."""
    files: Mapping[UUID, bytes] = field(default_factory=dict, repr=False)
    """The bytes of files that go with the request itself, by `Attachment.file`."""

    def way(self, name: str) -> str | None:
        """Return what the route says under a name, if that is a text."""
        value = (self.route or {}).get(name)
        return value if isinstance(value, str) and value else None


@dataclass(frozen=True, slots=True)
class Sign:
    """What the user is to see before the reply."""

    kind: "SignKind"
    message_id: str
    """The provider's id of the user's message, as webhooks gave it."""
    to: tuple[str, ...] = field(default=(), repr=False)
    route: JsonObject | None = field(default=None, repr=False)


class SignKind(StrEnum):
    """What can be shown."""

    SEEN = "seen"
    TYPING = "typing"
    """Seen, and that an answer is being written."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a provider. Address, headers and body hold tokens, texts and numbers: `name` is for logs."""

    name: str
    """Which call it is: `chat.postMessage`."""
    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    @classmethod
    def json(cls, name: str, url: str, content: JsonObject, headers: Mapping[str, str] | None = None) -> "Request":
        """POST an object."""
        typed = {"Content-Type": "application/json", **(headers or {})}
        return cls(name, "POST", url, typed, json.dumps(content).encode())

    @classmethod
    def form(cls, name: str, url: str, content: Mapping[str, str], headers: Mapping[str, str]) -> "Request":
        """POST a form."""
        body = urlencode(content, errors="replace").encode()
        return cls(name, "POST", url, {"Content-Type": FORM, **headers}, body)

    @classmethod
    def multipart(
        cls, name: str, url: str, content: Mapping[str, str], file: "FilePart", headers: Mapping[str, str] | None = None
    ) -> "Request":
        """POST a form with a file."""
        boundary = f"onelane-{file.described.file}"
        texts = [f'Content-Disposition: form-data; name="{one}"\r\n\r\n{value}' for one, value in content.items()]
        parts = [*(text.encode(errors="replace") for text in texts), file.head().encode(errors="replace") + file.data]
        body = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), part) for part in parts)
        typed = {"Content-Type": f"multipart/form-data; boundary={boundary}", **(headers or {})}
        return cls(name, "POST", url, typed, body + b"--%b--\r\n" % boundary.encode())

    @classmethod
    def get(cls, name: str, url: str, query: Mapping[str, str], headers: Mapping[str, str]) -> "Request":
        """GET an address with a query."""
        return cls(name, "GET", f"{url}?{urlencode(query, errors='replace')}" if query else url, headers)


Uploading = Generator[Request, Response, Attachment | Verdict]
"""Requests that hand a file to the provider, before the reply; each is sent its answer.

The last one's gives the file as the provider names it, or says why not: then nothing of the reply was sent.
"""

LookUp = Generator[Request, Response, Verdict]
"""Requests that ask for a reply; each is sent its answer, and the last one's gives the verdict.

`accepted`: it is there. `not_now`, as `absent`: it certainly is not. `unknown`: nobody can say, or not yet.
"""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file in a form."""

    field_name: str
    described: Attachment
    data: bytes = field(repr=False)

    def head(self) -> str:
        """Return what stands before the bytes."""
        name = "".join(letter if letter.isprintable() and letter not in '"\\' else "_" for letter in self.name())
        return (
            f'Content-Disposition: form-data; name="{self.field_name}"; filename="{name}"\r\n'
            f"Content-Type: {self.content_type()}\r\n\r\n"
        )

    def name(self) -> str:
        """Return the file's name."""
        return self.described.name or str(self.described.kind)

    def content_type(self) -> str:
        """Return its type, as far as it is one."""
        given = self.described.content_type or ""
        return given if CONTENT_TYPE.fullmatch(given) else "application/octet-stream"


def laid_over(content: Mapping[str, Any], raw: JsonObject | None, fixed: Mapping[str, Any]) -> JsonObject:
    """Lay a bot's own fields over ours; `fixed` ones stay."""
    return {**content, **(raw or {}), **fixed}


def first(values: Any) -> JsonObject:
    """Return the first object of a list, an empty one if there is none."""
    value = values[0] if isinstance(values, list) and values else None
    return value if isinstance(value, dict) else {}


def fields_of(value: Any) -> JsonObject:
    """Return an object, an empty one for anything else."""
    return value if isinstance(value, dict) else {}
