"""Call a WSGI application in this process, as its server would: nothing but the standard library."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from onelane.channels import Inbound

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Answered:
    """The answer to a request; an application that raises has answered 500."""

    status: int
    body: str


def called(application: Wsgi, method: str, request: Inbound) -> Answered:
    """Send one request, and read the whole answer."""
    statuses: list[int] = []

    def start_response(status: str, _headers: object, _error: object = None) -> Callable[[bytes], None]:
        statuses.append(int(status.split(" ", 1)[0]))
        return parts.append

    parts: list[bytes] = []
    try:
        chunks = application(_environment(method, request), start_response)
        try:
            parts.extend(chunks)
        finally:
            getattr(chunks, "close", lambda: None)()
    except Exception as error:  # noqa: BLE001 - whatever a stranger's application raises, its server would answer 500
        return Answered(500, f"{type(error).__name__}: {error}")
    return Answered(statuses[-1], b"".join(parts).decode(errors="replace"))


def _environment(method: str, request: Inbound) -> dict[str, Any]:
    url = urlsplit(request.url)
    own = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(url.path).decode("latin-1"),
        "QUERY_STRING": url.query,
        "CONTENT_TYPE": request.content_type,
        "CONTENT_LENGTH": str(len(request.body)),
        "SERVER_NAME": url.hostname or "",
        "SERVER_PORT": str(url.port or DEFAULT_PORTS[url.scheme]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": url.netloc,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    return own | {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()}
