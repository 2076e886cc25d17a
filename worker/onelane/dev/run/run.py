"""Everything on this machine with one command: embedded servers, migrations, web, worker, and their orderly end.

`onelane run` is for trying and developing. It owns what it starts: however it ends, nothing stays behind.
"""

import errno
import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from dotenv import dotenv_values

from onelane.config import Settings
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis, EmbeddedServer, model
from onelane.dev.embedded.child import Child
from onelane.dev.embedded.fakes import EmbeddedFakes
from onelane.dev.run import addresses, banner
from onelane.dev.run.data_folder import DataFolder
from onelane.dev.run.demo import demo_channels
from onelane.dev.run.reloading import Reloader
from onelane.dev.run.stop_request import StopRequest
from onelane.dev.stack import HOST, IGNORED, PYTHON, Stack
from onelane.errors import ConfigError, OnelaneError
from onelane.model import JsonObject
from onelane.sources import channels_in

PROCESSES = ("migrate", "web", "worker")
KINDS = ("worker", "poll")
"""Of which there may be several, by their names."""
POLLING = "onelane.dev.run.polling"
DEFAULT_PORT = 8000
PORTS_FOR_EVERYBODY = range(1_024, 65_536)
PUBLISHED = ("DATABASE_URL", "REDIS_URL", "PORT")
PATHS = ("REDIS_TLS_CA_FILE", "CHANNELS_FILE")


def run(handler: str | None = None, *, use_environment: bool = False, is_verbose: bool = False) -> int:
    """Run everything until a signal comes, then stop it all and return 0. `handler` takes the place of HANDLER.

    `use_environment` sets Onelane up where the environment's addresses lead, without asking. `is_verbose` logs more
    than a line for each turn.

    Raise ConfigError when a setting is wrong, OnelaneError when something does not start or dies.
    """
    stop_request = StopRequest(interrupts=True)  # before anything is started: from here on a signal ends it in order
    try:
        _read_environment_file(is_verbose=is_verbose)
        _run(handler, stop_request, use_environment=use_environment)
    except (KeyboardInterrupt, OnelaneError):
        if not stop_request.has_come:  # a Ctrl-C during the start also ends helpers, which is no news then
            raise
    return 0


def _read_environment_file(*, is_verbose: bool) -> None:
    """Complete the environment by `.env` of the working folder, and choose how to log."""
    for name, value in dotenv_values(".env", interpolate=False).items():
        if value and not os.environ.get(name):
            os.environ[name] = value
    if not is_verbose:
        os.environ.setdefault("LOG_FORMAT", "brief")
    elif sys.stderr.isatty():
        os.environ.setdefault("LOG_FORMAT", "text")


def _run(handler: str | None, stop_request: StopRequest, *, use_environment: bool) -> None:
    folder = DataFolder.of_environment()
    with folder.held():
        for name in (*PROCESSES, *(note.stem for kind in KINDS for note in folder.path.glob(f"{kind}-*.pid"))):
            Child(name, folder.path).stop_leftover()
        servers, own_ops_password, declined = _settled(folder, handler, use_environment=use_environment)
        stop_request.wait_for_check()
        reloading: list[Reloader] = []
        stack = Stack(folder.path, os.environ, echo=_print_log, on_tick=lambda: _tick(stop_request, reloading))
        try:
            worker = _start(stack, servers)
            reloading.append(
                Reloader(stack, worker, os.environ["HANDLER"], Path(os.environ["TRY_PROBLEM_FILE"]), _print_log)
            )
            folder.publish(_address(), declined.items())
            _print(banner.text(servers, folder.path, own_ops_password), sys.stdout)
            stack.watch()
        finally:
            folder.withdraw()
            if stack.has_processes:
                _print("onelane: stopping", sys.stderr)
            stack.stop()


def _address() -> dict[str, str]:
    """Return what the commands need that speak to what runs here; the channels in one, wherever they are configured."""
    channels = {name: given.value for name, given in channels_in(os.environ).items()}
    return {**{name: os.environ[name] for name in PUBLISHED}, "CHANNELS": json.dumps(channels)}


def _settled(
    folder: DataFolder, handler: str | None, *, use_environment: bool
) -> tuple[list[EmbeddedServer], str | None, dict[str, str]]:
    """Settle everything before anything starts.

    Return our servers, the operator's password if we made it up, and the addresses that are not used.
    """
    for name in IGNORED:
        os.environ.pop(name, None)
    named = addresses.named()
    servers = _own_servers(folder, named)
    demo = {} if os.environ.get("CHANNELS") else demo_channels(folder.demo_channels(), os.environ)
    if demo:
        os.environ["CHANNELS"] = json.dumps(demo)
    own_ops_password = _complete_environment(folder, servers, handler)
    declined = addresses.declined(named, Settings.from_environment(), is_wanted=use_environment)
    left = {name: os.environ[name] for name in declined}
    if declined:
        servers = _own_servers(folder, named - declined)
        os.environ.update({server.variable: server.url for server in servers})
    for name in sorted(named - declined):
        _print(f"onelane: {name} of the environment is used: {addresses.target_of(name)}", sys.stderr)
    if demo:
        servers.append(_fakes(folder, demo))
    if model.is_wanted(Settings.from_environment().handlers, os.environ):
        servers.append(model.EmbeddedModel(folder.path / "model"))
    return servers, own_ops_password, left


def _own_servers(folder: DataFolder, named: frozenset[str]) -> list[EmbeddedServer]:
    """Make the servers for which the environment names none."""
    servers: list[EmbeddedServer] = []
    if "DATABASE_URL" not in named:
        servers.append(EmbeddedPostgres(folder.path / "postgres"))
    if "REDIS_URL" not in named:
        servers.append(EmbeddedRedis(folder.path / "redis"))
    return servers


def _fakes(folder: DataFolder, demo: Mapping[str, JsonObject]) -> EmbeddedFakes:
    """Make the fakes to which the demo channels send; somebody's own channels send to the world."""
    fakes = EmbeddedFakes(folder.path / "providers", demo, f"http://{HOST}:{os.environ['PORT']}")
    os.environ.update(fakes.known_in(os.environ))
    return fakes


def _complete_environment(folder: DataFolder, servers: list[EmbeddedServer], handler: str | None) -> str | None:
    """Complete the settings and check them before anything starts.

    Return the operator's password if we made it up; one that somebody chose is not for the screen.
    """
    os.environ.update({server.variable: server.url for server in servers})
    if handler:
        os.environ["HANDLER"] = handler
    os.environ.setdefault("HANDLER", Settings.model_fields["handler"].default)
    os.environ["TRY_PROBLEM_FILE"] = str(folder.path / "problem.txt")
    own_ops_password = None if os.environ.get("OPS_PASSWORD") else folder.ops_password()
    if own_ops_password:
        os.environ["OPS_PASSWORD"] = own_ops_password
    os.environ["DEVELOPMENT"] = "true"
    is_own_redis = any(server.variable == "REDIS_URL" for server in servers)
    os.environ["TRY_ACTS"] = json.dumps(["kill-worker", *(["forget-redis"] if is_own_redis else [])])
    os.environ.setdefault("SHUTDOWN_GRACE_S", "5")  # Ctrl-C is impatient; what is not finished runs again
    settings = Settings.from_environment()
    for name in PATHS:
        if path := getattr(settings, name.lower()):
            os.environ[name] = str(path.absolute())  # the web runs in another folder
    os.environ["PORT"] = str(_free(settings.port))
    return own_ops_password


def _tick(stop_request: StopRequest, reloading: list[Reloader]) -> None:
    stop_request.check()
    for reloader in reloading:
        reloader.look()


def _start(stack: Stack, servers: list[EmbeddedServer]) -> Child:
    stack.start_servers(*servers)
    stack.migrate()
    port = int(os.environ["PORT"])
    stack.start_web(port)
    worker = stack.start_worker()
    stack.await_web(port)
    stack.await_worker(port)
    for name in _polled(Settings.from_environment()):
        stack.hear(stack.start(f"poll-{name}", [*PYTHON, POLLING, name, str(port)], may_end=True))
    return worker


def _polled(settings: Settings) -> list[str]:
    """Name the Telegram channels of somebody's own: no webhook of theirs reaches this machine."""
    return [
        name
        for name, channel in settings.channels.items()
        if channel.provider == "telegram" and channel.own.get("bot_token") and not _is_here(channel.own)
    ]


def _is_here(own: JsonObject) -> bool:
    return urlsplit(str(own.get("base_url", ""))).hostname == HOST


def _free(port: int) -> int:
    """Check that the web can have `port`, and find one for 0. Raise ConfigError."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does: a port in TIME_WAIT is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise ConfigError(f"PORT: {port} {reason}; try another, as in PORT={_other(port)}") from None
        free: int = probe.getsockname()[1]
        return free


def _other(port: int) -> int:
    """Propose the next port, if everybody may use it."""
    return port + 1 if port + 1 in PORTS_FOR_EVERYBODY else DEFAULT_PORT


def _print_log(line: str) -> None:
    _print(line, sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    with suppress(OSError):  # the terminal may be gone, and we still have to stop in order
        print(text, file=stream, flush=True)
