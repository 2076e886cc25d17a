"""Connections to Postgres: at most so many, each lent to one call at a time, and none that is older than a failure.

A connection carries the pool's generation at its birth. A failure ends the generation: an idle connection of it is as
dead as the one that failed, or leads to a server that is not the right one any more. It is dropped without being asked,
since a link that went silent never answers. Nothing here runs in the background: who needs a connection makes it.
"""

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from onelane.connection import Connection, refusal_of
from onelane.errors import StoreAway, StoreUnavailable

IDLE_MAX_S: Final = 600
"""A firewall may have forgotten a link that was idle for longer."""
AGE_MAX_S: Final = 3_600
CONNECT_MAX_S: Final = 5.0
REST_S: Final = 0.5
"""After a connection could not be made nobody tries for so long, or many callers would wait for it one by one."""

Connect = Callable[[float, int], Connection]
"""Connects within so many seconds; the connection carries the generation."""


class Pool:
    """At most `size` connections; the one used last is lent first."""

    def __init__(self, connect: Connect, size: int) -> None:
        self._connect = connect
        self._generation = 0
        """Written by whoever sees a failure; two who see the same end one generation together."""
        self._rest_until = 0.0
        self._refusal = ""
        self._places: queue.LifoQueue[Connection | None] = queue.LifoQueue()
        """A place is an idle connection, or leave to make one. There are `size` of them."""
        for _ in range(size):
            self._places.put(None)

    @contextmanager
    def connection(self, wait_s: float, connect_s: float) -> Iterator[Connection]:
        """Lend a connection: wait for a place, then make one unless it has one to trust; or raise StoreUnavailable."""
        try:
            connection = self._places.get(timeout=max(0.0, wait_s))
        except queue.Empty:
            raise StoreUnavailable("no connection to Postgres: the pool is used up, or it does not answer") from None
        try:
            if connection is None or not self._is_trusted(connection):
                _close(connection)
                connection = None  # what fails now has none
                connection = self._made(connect_s)
            yield connection
        finally:
            self._places.put(self._kept(connection))

    def forget(self, connection: Connection) -> None:
        """Note that `connection` failed: it and all that are as old are dropped."""
        if connection.generation == self._generation:
            self._generation += 1

    def forget_all(self) -> None:
        """Drop all connections that there are, each when its turn comes."""
        self._generation += 1

    def close(self) -> None:
        """Close what is idle, and what is lent when it comes back."""
        self._generation += 1
        for _ in range(self._places.qsize()):
            try:
                _close(self._places.get_nowait())
            except queue.Empty:
                return

    def _is_trusted(self, connection: Connection) -> bool:
        now = time.monotonic()
        return (
            connection.generation == self._generation
            and connection.is_idle
            and now - connection.used_at < IDLE_MAX_S
            and now - connection.made_at < AGE_MAX_S
        )

    def _made(self, connect_s: float) -> Connection:
        if time.monotonic() < self._rest_until:
            raise StoreAway(f"no connection to Postgres: {self._refusal}")
        try:
            return self._connect(min(CONNECT_MAX_S, connect_s), self._generation)
        except psycopg.OperationalError as error:
            self._refusal = refusal_of(error)
            self._rest_until = time.monotonic() + REST_S
            raise StoreAway(f"no connection to Postgres: {self._refusal}") from error

    def _kept(self, connection: Connection | None) -> Connection | None:
        """Keep a connection for the next, or the place alone."""
        if connection is None:
            return None
        connection.used_at = time.monotonic()
        if self._is_trusted(connection):
            return connection
        _close(connection)
        return None


def _close(connection: Connection | None) -> None:
    if connection is not None:
        connection.close()
