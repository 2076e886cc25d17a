"""Fresh servers for one measurement, and the processes that work with them.

PostgreSQL and Redis have exactly the settings of `onelane run`: every commit is flushed to disk before it is answered
(fsync and synchronous_commit on), Redis logs every write and flushes its log once a second.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Final

import psycopg
from redis import Redis

from bench.checkout import HERE, ROOT, Checkout
from bench.errors import BenchError
from onelane.bootstrap import Services, open_services
from onelane.config import Channel, Settings
from onelane.dev import stack
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from onelane.dev.embedded.child import Child, stop_all

CHANNEL = "demo"
SECRET = "whsec_dGhlIHNlY3JldCBvZiBhIGNoYW5uZWwgZm9yIG1lYXN1cmluZw=="  # noqa: S105 - opens nothing
CHANNELS: Final = {CHANNEL: Channel(provider="standard", secrets=(SECRET,))}
STOP_S = 10.0
REDIS_TIMEOUT_S = 5.0
BACKLOG_MAX = 100_000
"""What one user may have waiting before a run; processes that are measured keep their default."""
FOLDERS = "onelane-bench-"
"""The name of each run's folder begins so; the id of the process that made it follows."""

INBOX_OF_EARLIER = """
CREATE TEMPORARY VIEW inbox AS
SELECT user_id, seq, external_id, text FROM messages WHERE direction = 'in' AND state = 'received'
"""
"""Before there was an inbox, what waits lay in `messages`."""


class Stack(stack.Stack):
    """Two servers, the database migrated once they are up, by `checkout`."""

    def __init__(self, folder: Path, checkout: Checkout, channels: Mapping[str, Channel]) -> None:
        told = {name: {"provider": one.provider, **one.own} for name, one in channels.items()}
        super().__init__(folder, {**os.environ, **HERE.environment, "CHANNELS": json.dumps(told)}, cwd=ROOT)
        self._checkout = checkout
        self._channels = channels
        self.postgres = EmbeddedPostgres(folder / "postgres")
        self.redis_server = EmbeddedRedis(folder / "redis")
        self.redis = Redis.from_url(self.redis_server.url)
        self._observer: psycopg.Connection[Any]
        self.asked = 0
        """Statements of ours, which are no part of what is measured."""

    @contextmanager
    def up(self) -> Iterator[None]:
        """Run the servers for the block's time."""
        with self, ExitStack() as closing:
            self.start_servers(self.postgres, self.redis_server)
            self._migrate()
            self._observer = psycopg.connect(
                self.postgres.url, autocommit=True, application_name="bench", prepare_threshold=0, connect_timeout=5
            )
            closing.callback(self._observer.close)
            closing.callback(self.redis.close)
            if self._checkout.package != HERE.package:
                self.do(INBOX_OF_EARLIER)
            yield
            stop_all(self._children, STOP_S)  # in good order, so that what their own children used counts as ours

    @property
    def settings(self) -> Settings:
        """The settings of a process of this stack."""
        channels = {name: one.model_copy(update={"backlog_max": BACKLOG_MAX}) for name, one in self._channels.items()}
        return Settings(database_url=self.postgres.url, redis_url=self.redis_server.url, channels=channels)

    @contextmanager
    def services(self) -> Iterator[Services]:
        """Connect as a process of Onelane's does."""
        services = open_services(self.settings, redis_timeout_s=REDIS_TIMEOUT_S)
        try:
            yield services
        finally:
            services.close()

    def start_of(self, checkout: Checkout, name: str, argv: Sequence[str], **environment: object) -> Child:
        """Start a process in a checkout, with that one's packages."""
        return self.start(name, argv, {**checkout.environment, **environment}, cwd=checkout.folder)

    def do(self, statement: str, *params: object) -> None:
        """Let Postgres execute what has no answer."""
        self.asked += 1
        self._observer.execute(statement, params or None)

    def rows(self, query: str, *params: object) -> list[tuple[Any, ...]]:
        """Ask Postgres as a bystander."""
        self.asked += 1
        return self._observer.execute(query, params).fetchall()

    def value(self, query: str, *params: object) -> Any:
        """Ask Postgres for one value."""
        return self.rows(query, *params)[0][0]

    def _migrate(self) -> None:
        child = self.start(
            "migrate",
            self._checkout.command("migrate"),
            self._checkout.environment,
            cwd=self._checkout.folder,
            may_end=True,
        )
        self.wait_for(lambda: not child.is_running, "the end of the migrations", stack.MIGRATED_S)
        if child.exit_code:
            raise BenchError(f"the migrations failed:\n{child.last_lines()}")


@contextmanager
def fresh(checkout: Checkout = HERE, channels: Mapping[str, Channel] = CHANNELS) -> Iterator[Stack]:
    """Run new servers for the block's time; nothing of them stays."""
    with TemporaryDirectory(prefix=f"{FOLDERS}{os.getpid()}-") as folder:
        servers = Stack(Path(folder), checkout, channels)
        with servers.up():
            yield servers


def remove_leftovers() -> None:
    """Remove the folders of runs that were killed."""
    for folder in Path(gettempdir()).glob(f"{FOLDERS}*-*"):
        owner = folder.name.removeprefix(FOLDERS).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
