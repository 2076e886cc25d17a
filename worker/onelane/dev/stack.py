"""Servers, web and workers in one folder: what `onelane run`, the replay, the benchmark, chaos and the tests start.

How our programs are called is written here and in the Procfile. `-P` keeps the modules of the working folder out: only
the worker looks there, for its bot.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from onelane.dev.embedded import EmbeddedServer
from onelane.dev.embedded.child import Child, stop_all
from onelane.errors import EXIT_CONFIG, ConfigError, OnelaneError

HOST = "127.0.0.1"
PYTHON = (sys.executable, "-P", "-m")
MIGRATE = (*PYTHON, "onelane", "migrate")
WORKER = (*PYTHON, "onelane", "worker")
WEB = "onelane_web.wsgi:app"

IGNORED = frozenset({"GUNICORN_CMD_ARGS", "RQ_KEY_PREFIX"})
"""What may be set for another project, and would change our processes behind our back."""
MIGRATED_S = 180.0
READY_S = 60.0
ANSWER_S = 2.0
STOP_S = 25.0
POLL_S = 0.02
WATCH_S = 0.1


class Stack:
    """Leaving its block ends everything that it has started: the processes at once, the servers in good order."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, object],
        *,
        cwd: Path | None = None,
        echo: Callable[[str], object] | None = None,
        on_tick: Callable[[], object] = lambda: None,
    ) -> None:
        """Keep logs in `folder`; the processes get `environment` but IGNORED, the addresses of the servers, no more.

        `echo` receives each line that web and workers write. `on_tick` is called while we wait, and may end that by
        raising.
        """
        self.folder = folder
        self.environment = {name: value for name, value in _as_text(environment).items() if name not in IGNORED}
        self._cwd = cwd or Path.cwd()
        self._echo = echo
        self._on_tick = on_tick
        self._servers: list[EmbeddedServer] = []
        self._children: list[Child] = []
        self._watched: list[Child] = []
        self._heard: list[Child] = []

    @property
    def has_processes(self) -> bool:
        """Whether any process runs, beside the servers."""
        return any(child.is_running for child in self._children)

    def start_servers(self, *servers: EmbeddedServer) -> None:
        """Start them in this order. Every process that is started later gets their addresses."""
        for server in servers:
            self._servers.append(server)
            server.start()
            self.environment = server.known_in(self.environment)

    def migrate(self) -> None:
        """Bring the database to this release."""
        child = self.start("migrate", MIGRATE, may_end=True)
        self.wait_for(lambda: not child.is_running, "the end of the migrations", MIGRATED_S)
        if child.exit_code:
            raise OnelaneError(f"the migrations failed:\n{child.last_lines()}")

    def start_web(
        self, port: int, application: str = WEB, environment: Mapping[str, object] | None = None, name: str = "web"
    ) -> Child:
        """Start gunicorn as the Procfile does, on the loopback address; `await_web` waits for it.

        gunicorn puts the folder in which it is started before all others, so it is started in an empty one.
        """
        empty = self.folder / name
        empty.mkdir(exist_ok=True)
        return self.start(name, web_command(port, application), environment, cwd=empty)

    def await_web(self, port: int) -> None:
        """Wait until the web can do its work."""
        self.wait_for(lambda: is_ready(port), f"the start of the web on port {port}", READY_S)

    def start_worker(self, *arguments: str, environment: Mapping[str, object] | None = None) -> Child:
        """Start `onelane worker`; `await_worker` waits for it."""
        return self.start("worker", [*WORKER, *arguments], environment)

    def await_worker(self, port: int) -> None:
        """Wait until the web on `port` sees a worker that takes lanes: it has imported its handler then."""
        token = self.environment.get("METRICS_TOKEN", "")
        self.wait_for(lambda: _workers(port, token), "the start of a worker", READY_S)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, object] | None = None,
        *,
        cwd: Path | None = None,
        may_end: bool = False,
    ) -> Child:
        """Start a process; raise OnelaneError where the system does not.

        Its end is noticed by whoever waits, unless it `may_end` by itself.
        """
        child = Child(name, self.folder)
        self._children.append(child)
        if not may_end:
            self._watched.append(child)
        try:
            child.start(argv, cwd=cwd or self._cwd, env={**self.environment, **_as_text(environment or {})})
        except OSError as error:
            raise OnelaneError(f"{name} cannot be started: {error.strerror}") from error
        return child

    def keep(self, child: Child) -> None:
        """Notice from now on when it ends by itself."""
        self._watched.append(child)

    def hear(self, child: Child) -> None:
        """Echo what a process writes that may end by itself."""
        self._heard.append(child)

    def retire(self, child: Child) -> None:
        """Ask a process to end, and let it: that is no news."""
        self._watched.remove(child)
        self._heard.append(child)
        child.ask_to_stop()

    def forget(self, child: Child) -> None:
        """Put a process away that has ended."""
        self._pass_on()
        child.kill()
        child.log.unlink(missing_ok=True)
        self._children.remove(child)
        if child in self._heard:
            self._heard.remove(child)

    def wait_for(self, condition: Callable[[], Any], what: str, within_s: float, every_s: float = POLL_S) -> Any:
        """Wait until `condition()` is true and return its answer. Raise OnelaneError in vain, or after a death."""
        deadline = time.monotonic() + within_s
        while not (answer := condition()):
            self._look()
            if time.monotonic() > deadline:
                raise OnelaneError(f"{what} did not happen within {within_s:.0f} s{self._logs()}")
            time.sleep(every_s)
        return answer

    def watch(self) -> NoReturn:
        """Wait until something has died, and raise OnelaneError then."""
        while True:
            self._look()
            time.sleep(WATCH_S)

    def stop(self, within_s: float = STOP_S) -> None:
        """Ask the processes to end, kill those that have not ended in time, then stop the servers."""
        with ExitStack() as closing:
            if self._echo:
                closing.callback(self._pass_on)
            for server in self._servers:
                closing.callback(server.stop)
            stop_all(self._children, within_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(within_s=0)

    def _look(self) -> None:
        self._pass_on()
        self._on_tick()
        for server in self._servers:
            if server.has_died:
                raise OnelaneError(f"the embedded {server.title} died; the end of its log:\n{server.last_lines}")
        for child in self._watched:
            if child.has_died:
                self._pass_on()  # its last lines, which may say why
                kind = ConfigError if child.exit_code == EXIT_CONFIG else OnelaneError
                raise kind(f"{child.name} ended with exit code {child.exit_code}{self._logs(child)}")

    def _pass_on(self) -> None:
        """Echo what the processes have written since the last call."""
        if self._echo:
            for child in (*self._watched, *self._heard):
                for line in child.new_lines():
                    self._echo(f"{child.name:7} | {line}")

    def _logs(self, *children: Child) -> str:
        """Quote the ends of logs, unless they have been echoed."""
        if self._echo:
            return "; the log above says why"
        return "".join(f"\n{child.name}: {child.last_lines()}" for child in children or self._children)


def web_command(port: int, application: str = WEB, *options: str) -> list[str]:
    """Make the command that starts the web."""
    bind = ["-c", "python:onelane_web.gunicorn_settings", "--bind", f"{HOST}:{port}"]
    return [*PYTHON, "gunicorn", *bind, *options, application]


def is_ready(port: int) -> bool:
    """Ask the web on a port of this machine whether it can do its work."""
    return _get(port, "/readyz")[0] == HTTPStatus.OK


def _workers(port: int, token: str) -> int:
    """Ask the web how many workers there are."""
    status, body = _get(port, "/autoscale.json", {"Authorization": f"Bearer {token}"})
    return int(json.loads(body)["workers"]) if status == HTTPStatus.OK else 0


def _get(port: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Ask the web on a port of this machine; without an answer the status is 0."""
    connection = HTTPConnection(HOST, port, timeout=ANSWER_S)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, HTTPException):
        return 0, b""
    finally:
        connection.close()


def _as_text(environment: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in environment.items()}
