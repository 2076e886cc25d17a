"""Our web, with three pages more: a large answer, one that never comes, and one that a thread gives at once."""

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bench.slow_clients import BIG, HANGING, PLAIN
from onelane_web.health import ALIVE
from onelane_web.wsgi import app as ours

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ANSWER = b"x" * 5 * 2**20


def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Answer as the web does, but for those three."""
    if environ["PATH_INFO"] == PLAIN:
        return ours({**environ, "PATH_INFO": ALIVE}, start_response)
    if environ["PATH_INFO"] == HANGING:
        threading.Event().wait()
    if environ["PATH_INFO"] != BIG:
        return ours(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(ANSWER)))])
    return [ANSWER]
