"""A whole service of the replay's own, for a few seconds: servers, web and worker in a temporary folder."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from onelane.config import Settings
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from onelane.dev.embedded.child import Child, wait_until
from onelane.dev.embedded.redis import free_port
from onelane.dev.run.data_folder import CHECKOUT
from onelane.dev.run.stop_request import STOP_SIGNALS, StopRequest
from onelane.errors import OnelaneError
from onelane.migrations import migrate

READY_S = 60.0
STOP_S = 10.0
ANSWER_S = 10.0
FOREIGN = frozenset({"GUNICORN_CMD_ARGS", "WEB_CONCURRENCY"}) | {name.upper() for name in Settings.model_fields}
"""What the environment may say about another service must not reach this one."""


@dataclass(frozen=True)
class PrivateStack:
    """A running service."""

    base_url: str
    database_url: str
    processes: tuple[Child, ...]
    stop_request: StopRequest

    def wait_for(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait until `condition`; raise OnelaneError in vain, KeyboardInterrupt after a signal."""
        wait_until(lambda: self.stop_request.has_come or bool(self._dead()) or condition(), within_s)
        if self.stop_request.has_come:
            raise KeyboardInterrupt
        for process in self._dead():
            raise OnelaneError(f"the replay's {process.name} died; the end of its log:\n{process.last_lines()}")
        if not condition():
            logs = "\n".join(f"{process.name}: {process.last_lines()}" for process in self.processes)
            raise OnelaneError(f"{what} did not happen within {within_s:.0f} s\n{logs}")

    def _dead(self) -> list[Child]:
        return [process for process in self.processes if not process.is_running]

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Post a webhook; raise OnelaneError unless it is accepted."""
        request = Request(f"{self.base_url}{path}", body, dict(headers), method="POST")  # noqa: S310 - always http
        if (status := _status(request)) != HTTPStatus.OK:
            raise OnelaneError(f"the replay's web answered {status or 'nothing'}:\n{self.processes[0].last_lines()}")


@contextmanager
def running(tell: Callable[[str], object], environment: Mapping[str, str]) -> Iterator[PrivateStack]:
    """Run a service with these settings, and nothing of this process's; leave no process and no folder behind."""
    with ExitStack() as closing:
        stop_request = closing.enter_context(_stop_request())
        folder = Path(closing.enter_context(TemporaryDirectory(prefix="onelane-incident-")))
        try:
            yield _start(folder, closing, stop_request, tell, environment)
        except OnelaneError:
            if stop_request.has_come:  # a Ctrl-C in a terminal reaches helpers too; that they failed is no news
                raise KeyboardInterrupt from None
            raise


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
    if stop_request.has_come:
        raise KeyboardInterrupt


def _start(
    folder: Path,
    closing: ExitStack,
    stop_request: StopRequest,
    tell: Callable[[str], object],
    environment: Mapping[str, str],
) -> PrivateStack:
    tell("starting a private PostgreSQL and Redis")
    urls = _start_servers(folder, closing)
    migrate(urls["DATABASE_URL"])
    tell("starting web and worker")
    address = f"127.0.0.1:{free_port()}"
    processes = _start_processes(folder, closing, address, {**_neutral_environment(), **urls, **environment})
    stack = PrivateStack(f"http://{address}", urls["DATABASE_URL"], processes, stop_request)
    ready = Request(f"{stack.base_url}/readyz")  # noqa: S310 - always http
    stack.wait_for(lambda: _status(ready) == HTTPStatus.OK, READY_S, "the web's start")
    return stack


def _start_servers(folder: Path, closing: ExitStack) -> dict[str, str]:
    """Start each with its end on `closing` before it begins; answer their URLs by their variables' names."""
    # fsync protects from the machine's crash, after which nobody would ask for this data.
    servers = EmbeddedPostgres(folder / "postgres", {"fsync": "off"}), EmbeddedRedis(folder / "redis")
    for server in servers:
        closing.callback(server.stop)
        server.start()
    return {server.variable: server.url for server in servers}


def _start_processes(
    folder: Path, closing: ExitStack, address: str, environment: Mapping[str, str]
) -> tuple[Child, Child]:
    web, worker = Child("web", folder), Child("worker", folder)
    gunicorn = [
        "gunicorn",
        "-c",
        "python:onelane_web.gunicorn_settings",
        "--bind",
        address,
        "onelane_web.development.replay:application()",
    ]
    for process, module in ((web, gunicorn), (worker, ["onelane.dev.incident.clocked_worker"])):
        closing.callback(process.stop, STOP_S)
        process.start([sys.executable, "-m", *module], cwd=CHECKOUT, env=environment)
    for process in (web, worker):  # called before the callbacks above: both are asked before either is waited for
        closing.callback(process.ask_to_stop)
    return web, worker


def _neutral_environment() -> dict[str, str]:
    """Keep what programs need to run at all. As in worker/onelane/dev/run/run.py, our packages come first, from any folder."""
    kept = {name: value for name, value in os.environ.items() if name.upper() not in FOREIGN}
    path = os.pathsep.join(filter(None, [str(CHECKOUT), kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def _status(request: Request) -> int | None:
    """Ask, past any proxy of the environment; None when nothing answers."""
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=ANSWER_S) as response:
            status: int = response.status
            return status
    except HTTPError as error:
        error.close()
        return error.code
    except (OSError, HTTPException):
        return None
