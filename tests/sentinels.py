"""A primary with a replica, and three Sentinels that watch over them: all real, all ours."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from onelane.dev.embedded import EmbeddedRedis, EmbeddedServer
from onelane.dev.embedded.redis import find_program, free_port
from tests.conftest import eventually

SERVICE = "lanes"
PASSWORD = "open sesame, Sentinel"
DOWN_AFTER_S = 1.0
"""How long a primary may be silent; the Sentinels agree and choose another within about two seconds more."""


class Sentinel(EmbeddedServer):
    """One Sentinel: Redis' own program in its other role."""

    title = "Sentinel"
    variable = "REDIS_URL"

    def __init__(self, folder: Path, primary: EmbeddedRedis, password: str) -> None:
        """Watch over `primary`, whose servers take `password`."""
        super().__init__(folder)
        self.port = free_port()
        self._primary = primary
        self._password = password

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def program(self) -> str:
        return f"Sentinel of {find_program().title}"

    @property
    def client(self) -> redis.Redis:
        """Speak to it."""
        return redis.Redis.from_url(self.url, password=PASSWORD, socket_timeout=2, retry=Retry(NoBackoff(), 0))

    def _launch(self) -> None:
        self.data_dir.mkdir()
        settings = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f'requirepass "{PASSWORD}"',
            f'sentinel sentinel-pass "{PASSWORD}"',
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary.port} 2",
            f"sentinel auth-pass {SERVICE} {self._password}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_S * 1000:.0f}",
            f"sentinel failover-timeout {SERVICE} 2000",
        ]
        configuration = self.data_dir / "sentinel.conf"
        configuration.write_text("\n".join(settings))
        self._child.start([str(find_program().path), str(configuration), "--sentinel"], cwd=self.data_dir)

    def _is_ready(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class Watched:
    """Two servers, and the Sentinels that watch over them: they decide which is the primary."""

    def __init__(self, servers: list[EmbeddedRedis], sentinels: list[Sentinel], password: str) -> None:
        self._servers = servers
        self._sentinels = sentinels
        self._password = password

    @property
    def primary(self) -> EmbeddedRedis:
        """The server that the Sentinels name."""
        with self._sentinels[0].client as client:
            _, port = client.sentinel_get_master_addr_by_name(SERVICE)
        return next(one for one in self._servers if one.port == port)

    def url(self, service: str = SERVICE, sentinel_password: str = PASSWORD) -> str:
        """Word what REDIS_URL is; the first Sentinel is one that is not there."""
        places = ",".join(f"127.0.0.1:{port}" for port in (free_port(), *(one.port for one in self._sentinels)))
        access = f"sentinel_password={sentinel_password.replace(' ', '%20')}"
        return f"redis+sentinel://:{self._password}@{places}/{service}/0?{access}"

    def await_readiness(self) -> Self:
        """Wait until every Sentinel knows the others and a replica: so it can fail over."""
        eventually(lambda: all(_knows_all(one) for one in self._sentinels))
        return self


def _knows_all(sentinel: Sentinel) -> bool:
    with sentinel.client as client:
        found = client.sentinel_master(SERVICE)
        [replica] = client.sentinel_slaves(SERVICE) or [None]
    return (
        found["num-other-sentinels"] == 2
        and replica is not None
        and not replica["is_disconnected"]
        and replica["master-link-status"] == "ok"
    )


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Run them all."""
    settings: dict[str, str] = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}
    primary = EmbeddedRedis(folder / "one", settings=settings)
    password = str(urlsplit(primary.url).password)
    settings["masterauth"] = password
    replica = EmbeddedRedis(folder / "two", settings={**settings, "replicaof": f"127.0.0.1 {primary.port}"})
    replica._password = password
    sentinels = [Sentinel(folder / f"sentinel-{nr}", primary, password) for nr in range(3)]
    with ExitStack() as stack:
        for server in (primary, replica, *sentinels):
            stack.enter_context(server)
        yield Watched([primary, replica], sentinels, password)
