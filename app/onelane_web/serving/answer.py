"""The answer to a whole request: gunicorn's request goes in, bytes come out."""

import json
from datetime import datetime
from typing import Any, Final, NamedTuple

from gunicorn.http import wsgi

from onelane_web.headers import HEADERS

RETRY_AFTER_S: Final = 5
COMMON: Final = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
WAITED_S: Final = "onelane.waited_s"
"""The name in a request's environment for how long it has waited for a thread."""


class Answer(NamedTuple):
    """What a client gets."""

    data: bytes | bytearray
    is_last: bool
    """Whether the connection ends with it."""


class Output:
    """What gunicorn writes an answer to, in place of the client's socket: no client can make it wait."""

    def __init__(self) -> None:
        """Begin empty."""
        self.data = bytearray()

    def sendall(self, data: bytes) -> None:
        """Keep `data`."""
        self.data += data

    def send(self, data: bytes) -> int:
        """Ignore `100 Continue`, which gunicorn sends like this: the client has got it, and has continued."""
        return len(data)

    def gettimeout(self) -> float:
        """Be a socket that does not block."""
        return 0.0


def respond(
    worker: Any, request: Any, client: Any, server: Any, *, waited_s: float, is_last: bool
) -> tuple[bytearray, bool]:
    """Ask the application; return the answer, and whether the client may send another request after it."""
    output, began = Output(), datetime.now()  # noqa: DTZ005 - only the difference counts
    response, environ = wsgi.create(request, output, client, server, worker.cfg)
    environ |= {"wsgi.multithread": True, WAITED_S: waited_s}
    if is_last:
        response.force_close()
    body = worker.wsgi(environ, response.start_response)
    try:
        for part in body:
            response.write(part)
        response.close()
    finally:
        if hasattr(body, "close"):
            body.close()
    worker.log.access(response, request, environ, datetime.now() - began)  # noqa: DTZ005 - as above
    return output.data, not response.should_close()


def refuse(worker: Any, request: Any, client: Any, error: BaseException) -> Answer:
    """Answer to what is no request, or what the application has not caught: with gunicorn's status, in our words."""
    output = Output()
    worker.handle_error(request, output, client, error)
    _, _, status = output.data.partition(b"\r\n")[0].decode().partition(" ")
    return _last(status, f"this request cannot be answered: {status.partition(' ')[2].lower()}")


def unavailable(why: str) -> Answer:
    """Refuse for now, without the application: whoever sent the request sends it again."""
    again = f"Retry-After: {RETRY_AFTER_S}\r\n"
    return _last("503 Service Unavailable", f"{why}: send it again in {RETRY_AFTER_S} s", again)


def _last(status: str, why: str, headers: str = "") -> Answer:
    body = json.dumps({"error": why}).encode()
    head = (
        f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}{COMMON}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return Answer(head.encode() + body, is_last=True)
