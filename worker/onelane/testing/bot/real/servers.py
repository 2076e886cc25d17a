"""The servers on which bots are tested: a PostgreSQL and a Redis a process, a database and a prefix each bot."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Final

import psycopg
from psycopg.sql import SQL, Identifier

from onelane.config import Channel
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from onelane.postgres.migrations import migrate
from onelane.testing.bot.settings import CHANNEL
from onelane.testing.fake_providers import FakeProviders
from onelane.testing.fake_providers.running import fake_providers

FAST: Final = {"fsync": "off", "max_connections": "100"}
"""A machine's crash would lose data, which no test makes."""


class Servers:
    """Running servers."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="onelane-"))
        self._postgres = EmbeddedPostgres(self._folder / "postgres", FAST)
        self._redis = EmbeddedRedis(self._folder / "redis")
        self._numbers = count(1)
        atexit.register(self.stop)
        self._postgres.start()
        self._redis.start()
        migrate(self._postgres.url)

    def fresh(self) -> dict[str, str]:
        """Make an empty database and a prefix of its own; return the settings that name them."""
        name = f"bot_{next(self._numbers)}"
        # The first database is the pattern: nobody else is connected to it.
        with psycopg.connect(self._postgres.url.replace("/postgres?", "/template1?"), autocommit=True) as connection:
            connection.execute(SQL("CREATE DATABASE {} TEMPLATE postgres STRATEGY file_copy").format(Identifier(name)))
        database_url = self._postgres.url.replace("/postgres?", f"/{name}?")
        return {"database_url": database_url, "redis_url": self._redis.url, "redis_prefix": f"{name}:"}

    def stop(self) -> None:
        """Stop them, and remove what they kept."""
        self._redis.stop()
        self._postgres.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def fakes_of(channel: Channel) -> Iterator[FakeProviders]:
    """Run a fake of a channel's provider."""
    with (
        tempfile.TemporaryDirectory(prefix="onelane-") as folder,
        fake_providers({CHANNEL: channel}, Path(folder) / "received.jsonl") as fakes,
    ):
        yield fakes


@cache
def servers() -> Servers:
    """Start the servers, once a process."""
    return Servers()
