"""As much of HTTP/1.1 as a provider's API needs: a request is read within bounds, an answer is written."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from onelane.model import JsonObject

HEAD_MAX: Final = 64 * 2**10
BODY_MAX: Final = 64 * 2**20
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"


class HttpError(Exception):
    """What came is no request that is understood here."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; the first part of its path names the channel, and is not in `path`."""

    method: str
    channel: str
    path: str
    """Percent-encoded, as it came, without the query."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""

    @property
    def content_type(self) -> str:
        """The type, without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def values(self) -> JsonObject:
        """Read the arguments, wherever they stand: the query, and a body of JSON, of a form, or of several parts."""
        return {**self.query, **self._body_values()}

    def _body_values(self) -> JsonObject:
        if self.content_type == JSON:
            return self.json()
        if self.content_type == FORM:
            return dict(parse_qsl(self.body.decode(errors="replace"), keep_blank_values=True))
        return self._parts() if self.content_type == MULTIPART else {}

    def json(self) -> JsonObject:
        """Read a JSON object; of anything else, nothing."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _parts(self) -> JsonObject:
        """Read the texts; of a file, its bytes."""
        whole = message_from_bytes(b"Content-Type: " + self.headers["content-type"].encode() + b"\r\n\r\n" + self.body)
        found: JsonObject = {}
        for part in whole.walk():
            name = part.get_param("name", header="content-disposition")
            content = part.get_payload(decode=True)
            if isinstance(name, str) and isinstance(content, bytes):
                found[name] = content if part.get_filename() else content.decode(errors="replace")
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """Write it, with its length, on a connection that stays open."""
        lines = [
            f"HTTP/1.1 {self.status} {_phrase(self.status)}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def answer_of(content: Any, status: int = 200, **headers: str) -> Answer:
    """Answer with JSON; a header's name is written with underscores."""
    return Answer(
        status, json.dumps(content).encode(), headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


async def read_head(reader: asyncio.StreamReader) -> Request | None:
    """Read a request up to its body; None when the connection ended first. Raise HttpError."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise HttpError from None
    try:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _version = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        url = urlsplit(target)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
    except ValueError:
        raise HttpError from None
    _, channel, *rest = [*url.path.split("/", 2), ""]
    return Request(method, channel, f"/{rest[0]}", query, headers)


async def read_body(reader: asyncio.StreamReader, head: Request) -> bytes:
    """Read the body, whole or in chunks. Raise HttpError, IncompleteReadError."""
    try:
        if head.headers.get("transfer-encoding", "").lower() != "chunked":
            return await reader.readexactly(_bounded(int(head.headers.get("content-length", "0"))))
        body = bytearray()
        while size := int((await reader.readline()).partition(b";")[0], 16):
            body += await reader.readexactly(_bounded(size, len(body)))
            await reader.readline()
        while (await reader.readline()).strip():
            pass
    except ValueError:
        raise HttpError from None
    return bytes(body)


def _bounded(size: int, already: int = 0) -> int:
    if not 0 <= size <= BODY_MAX - already:
        raise HttpError
    return size


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
