"""Everything on this machine with one command: embedded servers, migrations, web, worker, and their orderly end.

`onelane run` is for trying and developing. It owns what it starts: however it ends, nothing stays behind.
"""

import errno
import json
import os
import socket
import sys
import time
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TextIO

from onelane.config import Settings
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis, EmbeddedServer
from onelane.dev.embedded.child import Child
from onelane.dev.run import banner
from onelane.dev.run.data_folder import CHECKOUT, DataFolder
from onelane.dev.run.stop_request import STOP_SIGNALS, StopRequest
from onelane.errors import ConfigError, OnelaneError

__all__ = ["STOP_SIGNALS", "Stack", "StopRequest", "run", "running"]

HOST = "127.0.0.1"
MIGRATED_S = 180.0
READY_S = 30.0
STOP_S = 25.0
TICK_S = 0.1
DEFAULT_PORT = 8000
PORTS_FOR_EVERYBODY = range(1_024, 65_536)
PUBLISHED = ("DATABASE_URL", "REDIS_URL", "CHANNELS", "PORT")


def run() -> int:
    """Run everything until a signal comes, then stop it all and return 0.

    Raise ConfigError when a setting is wrong, OnelaneError when something does not start or dies. This process's
    environment becomes that of everything it starts.
    """
    stop = StopRequest()
    folder = DataFolder.of_environment()
    with folder.held():
        stack = Stack(folder, stop)
        try:
            stack.run()
        except OnelaneError:
            if not stop.has_come:  # a Ctrl-C during the start also ends helpers, which is no news then
                raise
        finally:
            stack.stop()
    return 0


def running() -> dict[str, str] | None:
    """Answer DATABASE_URL, REDIS_URL, CHANNELS and PORT of the stack that runs here; None when none does."""
    return DataFolder.of_environment().published()


class Stack:
    """The processes of one run."""

    def __init__(self, folder: DataFolder, stop: StopRequest) -> None:
        self._folder = folder
        self._stop_request = stop
        self._migrate, self._web, self._worker = (Child(name, folder.path) for name in ("migrate", "web", "worker"))
        self._servers: list[EmbeddedServer] = []
        self._own_ops_password: str | None = None
        """The one that we made up; the operator's own is not for the screen."""
        self._watched: list[Child | EmbeddedServer] = []

    def run(self) -> None:
        """Start, say so, and watch, until a stop is requested."""
        for start in (self._prepare, self._start_servers, self._apply_migrations, self._start_processes):
            start()
            if self._stop_request.has_come:
                return
        self._say_ready()
        while not self._stop_request.has_come:
            self._tick()

    def stop(self) -> None:
        """Stop what runs, within bounds: first those who work, then the servers they work with."""
        self._folder.withdraw()
        processes = (self._migrate, self._web, self._worker)
        if any(process.is_running for process in processes):
            _say("onelane: stopping", sys.stderr)
        for process in processes:
            process.ask_to_stop()
        deadline = time.monotonic() + STOP_S
        for process in processes:
            process.stop(deadline - time.monotonic())
        for server in reversed(self._servers):
            server.stop()
        self._echo()

    def _prepare(self) -> None:
        """Complete the environment and check it before anything starts."""
        for process in (self._web, self._worker, self._migrate):
            process.stop_leftover()
        if not os.environ.get("DATABASE_URL"):
            self._servers.append(EmbeddedPostgres(self._folder.path / "postgres"))
        if not os.environ.get("REDIS_URL"):
            self._servers.append(EmbeddedRedis(self._folder.path / "redis"))
        os.environ.update({server.variable: server.url for server in self._servers})
        if not os.environ.get("CHANNELS"):
            os.environ["CHANNELS"] = json.dumps({"demo": {"provider": "standard", "secrets": [self._folder.secret()]}})
        self._own_ops_password = None if os.environ.get("OPS_PASSWORD") else self._folder.ops_password()
        if self._own_ops_password:
            os.environ["OPS_PASSWORD"] = self._own_ops_password
        os.environ["DEVELOPMENT"] = "true"
        os.environ.setdefault("SHUTDOWN_GRACE_S", "5")  # Ctrl-C is impatient; what is not finished runs again
        if sys.stderr.isatty():
            os.environ.setdefault("LOG_FORMAT", "text")
        # Our packages are found from any folder; those of the same names in the working folder are not.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        os.environ["PYTHONSAFEPATH"] = "1"
        os.environ["PORT"] = str(_free(Settings.from_environment().port))

    def _start_servers(self) -> None:
        for server in self._servers:
            server.start()
            self._watched.append(server)

    def _apply_migrations(self) -> None:
        self._migrate.start([sys.executable, "-m", "onelane", "migrate"], cwd=CHECKOUT)
        deadline = time.monotonic() + MIGRATED_S
        while self._migrate.is_running and not self._stop_request.has_come:
            self._tick()
            if time.monotonic() > deadline:
                raise OnelaneError(f"the migrations did not end within {MIGRATED_S:.0f} s")
        if self._migrate.exit_code != 0:
            raise OnelaneError(f"the migrations failed:\n{self._migrate.last_lines()}")

    def _start_processes(self) -> None:
        """Start web and worker, and wait until the web can do its work."""
        bind = f"{HOST}:{os.environ['PORT']}"
        gunicorn = ["gunicorn", "-c", "python:onelane_web.gunicorn_settings", "--bind", bind, "onelane_web.wsgi:app"]
        self._web.start([sys.executable, "-m", *gunicorn], cwd=CHECKOUT)
        self._worker.start([sys.executable, "-m", "onelane", "worker"], cwd=Path.cwd())
        self._watched += [self._web, self._worker]
        deadline = time.monotonic() + READY_S
        while not self._stop_request.has_come and not _is_ready(bind):
            self._tick()
            if time.monotonic() > deadline:
                raise OnelaneError(f"the web at http://{bind}/readyz was not ready within {READY_S:.0f} s")

    def _say_ready(self) -> None:
        self._folder.publish({name: os.environ[name] for name in PUBLISHED})
        _say(banner.words(self._servers, self._folder.path, self._own_ops_password), sys.stdout)

    def _tick(self) -> None:
        """Pass on what the processes say, and notice a death."""
        self._echo()
        for process in self._watched:
            if not process.is_running:
                self._echo()
                raise _death_of(process)
        time.sleep(TICK_S)

    def _echo(self) -> None:
        for process in (self._web, self._worker):
            for line in process.new_lines():
                _say(f"{process.name:7} | {line}", sys.stderr)


def _death_of(process: Child | EmbeddedServer) -> OnelaneError:
    if isinstance(process, EmbeddedServer):
        return OnelaneError(f"the embedded {process.title} died; the end of its log:\n{process.last_lines}")
    return OnelaneError(f"{process.name} ended with exit code {process.exit_code}; it said why above")


def _free(port: int) -> int:
    """Check that the web can have `port`, and find one for 0. Raise ConfigError."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does: old connections are no one
        try:
            probe.bind((HOST, port))
        except OSError as error:
            reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise ConfigError(f"PORT: {port} {reason}; try another: PORT={_other(port)} make run") from None
        free: int = probe.getsockname()[1]
        return free


def _other(port: int) -> int:
    """Propose the next port, if everybody may use it."""
    return port + 1 if port + 1 in PORTS_FOR_EVERYBODY else DEFAULT_PORT


def _is_ready(address: str) -> bool:
    connection = HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _say(text: str, stream: TextIO) -> None:
    with suppress(OSError):  # the terminal may be gone, and we still have to stop in order
        print(text, file=stream, flush=True)
