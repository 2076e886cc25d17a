"""A web process that has little time to load its application, and an application that takes too long once.

`gunicorn -k tests.hasty.HastyWorker "tests.hasty:load()"`, with a file's name in HANGS_ONCE.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from onelane_web.serving import worker

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

worker.BOOT_S = 1.0  # type: ignore[misc]  # for this process of gunicorn's


class HastyWorker(worker.LoopWorker):
    """What the web uses, under a name by which this file is loaded."""


def load() -> Callable[["WSGIEnvironment", "StartResponse"], list[bytes]]:
    """Load the application, which hangs until the file is there, and makes it."""
    been_here = Path(os.environ["HANGS_ONCE"])
    if not been_here.exists():
        been_here.touch()
        threading.Event().wait()
    return answer


def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
    """Answer, but for what blocks the loop."""
    if environ["QUERY_STRING"] == "block":
        threading.Event().wait()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
