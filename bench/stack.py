"""Fresh servers for one measurement, and the processes that work with them.

PostgreSQL and Redis have exactly the settings of `make run`: every commit is flushed to disk before it is answered
(fsync and synchronous_commit on), Redis logs every write and flushes its log once a second.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from redis import Redis

from bench.errors import BenchError
from onelane.bootstrap import Services, open_services
from onelane.config import Channel, Settings
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from onelane.dev.embedded.child import Child
from onelane.dev.embedded.redis import free_port
from onelane.migrations import migrate

ROOT = Path(__file__).resolve().parent.parent
CHANNEL = "demo"
SECRET = "whsec_dGhlIHNlY3JldCBvZiBhIGNoYW5uZWwgZm9yIG1lYXN1cmluZw=="  # noqa: S105 - opens nothing
READY_S = 30.0
STOP_S = 10.0
POLL_S = 0.02
REDIS_TIMEOUT_S = 5.0
BACKLOG_MAX = 100_000
"""What one user may have waiting before a run; processes that are measured keep their default."""


class Stack:
    """Two running servers, the database migrated."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, redis: EmbeddedRedis, closing: ExitStack) -> None:
        self.folder = folder
        self.postgres = postgres
        self.redis_server = redis
        self.redis = Redis.from_url(redis.url)
        self._closing = closing
        self._observer = psycopg.connect(
            postgres.url, autocommit=True, application_name="bench", prepare_threshold=0, connect_timeout=5
        )
        closing.callback(self._observer.close)
        closing.callback(self.redis.close)
        self.redis.ping()
        self.asked = 0
        """Statements of ours, which are no part of what is measured."""

    @property
    def settings(self) -> Settings:
        """The settings of a process of this stack."""
        channel = Channel(provider="standard", secrets=(SECRET,), backlog_max=BACKLOG_MAX)
        return Settings(database_url=self.postgres.url, redis_url=self.redis_server.url, channels={CHANNEL: channel})

    @contextmanager
    def services(self) -> Iterator[Services]:
        """Connect as a process of Onelane's does."""
        services = open_services(self.settings, redis_timeout_s=REDIS_TIMEOUT_S)
        try:
            yield services
        finally:
            services.close()

    def rows(self, query: str, *params: object) -> list[tuple[Any, ...]]:
        """Ask Postgres as a bystander."""
        self.asked += 1
        return self._observer.execute(query, params).fetchall()

    def value(self, query: str, *params: object) -> Any:
        """Ask Postgres for one value."""
        return self.rows(query, *params)[0][0]

    def start(self, name: str, argv: Sequence[str], environment: Mapping[str, object] | None = None) -> Child:
        """Start a process that knows the servers; it ends with this stack at the latest."""
        child = Child(name, self.folder)
        self._closing.callback(child.kill)
        known = {
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis_server.url,
            "CHANNELS": json.dumps({CHANNEL: {"provider": "standard", "secrets": [SECRET]}}),
            **{key: str(value) for key, value in (environment or {}).items()},
        }
        child.start(argv, cwd=ROOT, env={**os.environ, **known})
        return child

    def start_web(self, application: str) -> tuple[Child, int]:
        """Start gunicorn as the Procfile does, and wait until it answers; return it and its port."""
        port = free_port()
        bind = ["-c", "python:onelane_web.gunicorn_settings", "--bind", f"127.0.0.1:{port}"]
        web = self.start("web", [sys.executable, "-m", "gunicorn", *bind, application])
        self.wait_for(lambda: _is_ready(port), "the web's start", [web], READY_S)
        return web, port

    def wait_for(
        self,
        condition: Callable[[], Any],
        what: str,
        children: Sequence[Child],
        within_s: float,
        every_s: float = POLL_S,
    ) -> Any:
        """Wait until `condition()` and return its answer; raise BenchError in vain, or when a child dies."""
        ends = time.monotonic() + within_s
        while not (answer := condition()):
            if time.monotonic() > ends:
                raise BenchError(f"{what} did not happen within {within_s:.0f} s\n{_logs(children)}")
            if any(not child.is_running for child in children):
                raise BenchError(f"before {what} a process ended\n{_logs(children)}")
            time.sleep(every_s)
        return answer


def stop(children: Sequence[Child]) -> None:
    """Ask all to stop, and wait."""
    for child in children:
        child.ask_to_stop()
    for child in children:
        child.stop(STOP_S)


@contextmanager
def fresh() -> Iterator[Stack]:
    """Run new servers for the block's time; nothing of them stays."""
    with ExitStack() as closing:
        folder = Path(closing.enter_context(TemporaryDirectory(prefix="onelane-bench-")))
        postgres = closing.enter_context(EmbeddedPostgres(folder / "postgres"))
        redis_server = closing.enter_context(EmbeddedRedis(folder / "redis"))
        migrate(postgres.url)
        yield Stack(folder, postgres, redis_server, closing)


def _is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _logs(children: Sequence[Child]) -> str:
    return "\n".join(f"{child.name}: {child.last_lines()}" for child in children)
