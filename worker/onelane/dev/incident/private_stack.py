"""A whole service of the replay's own, for a few seconds: servers, web and worker in a temporary folder."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from onelane.config import Settings
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from onelane.dev.embedded.child import Child
from onelane.dev.embedded.redis import free_port
from onelane.dev.run.stop_request import STOP_SIGNALS, StopRequest
from onelane.dev.stack import HOST, PYTHON, Stack
from onelane.errors import OnelaneError
from onelane.sources import without_channels

STOP_S = 10.0
ANSWER_S = 10.0
WEB = "onelane_web.development.replay:application()"
WORKER = (*PYTHON, "onelane.dev.incident.clocked_worker")
FOREIGN = frozenset(name.upper() for name in Settings.model_fields)
"""What the environment may say about another service must not reach this one."""


@dataclass(frozen=True)
class PrivateStack:
    """A running service."""

    stack: Stack
    base_url: str
    web: Child

    @property
    def database_url(self) -> str:
        """Where its rows are."""
        return self.stack.environment["DATABASE_URL"]

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Post a webhook; raise OnelaneError unless it is accepted."""
        request = Request(f"{self.base_url}{path}", body, dict(headers), method="POST")  # noqa: S310 - always http
        if (status := _status(request)) != HTTPStatus.OK:
            raise OnelaneError(f"the replay's web answered {status or 'nothing'}:\n{self.web.last_lines()}")


@contextmanager
def running(report: Callable[[str], object], environment: Mapping[str, str]) -> Iterator[PrivateStack]:
    """Run a service with these settings, and nothing of this process's; leave no process and no folder behind.

    Raise KeyboardInterrupt when a signal comes.
    """
    with _stop_request() as stop_request, TemporaryDirectory(prefix="onelane-incident-") as folder:
        stack = Stack(Path(folder), {**_neutral_environment(), **environment}, on_tick=stop_request.check)
        try:
            yield _start(stack, report)
        except OnelaneError:
            stop_request.check()  # a Ctrl-C in a terminal reaches helpers too; that they failed is no news
            raise
        finally:
            stack.stop(STOP_S)


@contextmanager
def _stop_request() -> Iterator[StopRequest]:
    """Note signals instead of dying of them; raise KeyboardInterrupt for one when everything has been stopped."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    stop_request = StopRequest()
    try:
        yield stop_request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    stop_request.check()


def _start(stack: Stack, report: Callable[[str], object]) -> PrivateStack:
    report("starting a private PostgreSQL and Redis")
    # fsync protects from the machine's crash, after which nobody would ask for this data.
    stack.start_servers(
        EmbeddedPostgres(stack.folder / "postgres", {"fsync": "off"}), EmbeddedRedis(stack.folder / "redis")
    )
    stack.migrate()
    report("starting web and worker")
    port = free_port()
    web = stack.start_web(port, WEB)
    stack.start("worker", WORKER)
    stack.await_web(port)
    return PrivateStack(stack, f"http://{HOST}:{port}", web)


def _neutral_environment() -> dict[str, str]:
    """Keep what programs need to run at all."""
    return {name: value for name, value in without_channels(os.environ).items() if name.upper() not in FOREIGN}


def _status(request: Request) -> int | None:
    """Send a request past any proxy of the environment; None when nothing answers."""
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=ANSWER_S) as response:
            status: int = response.status
            return status
    except HTTPError as error:
        error.close()
        return error.code
    except (OSError, HTTPException):
        return None
