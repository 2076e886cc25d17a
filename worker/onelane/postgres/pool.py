"""Connections to Postgres: at most so many, each lent to one call at a time, and none that is older than a failure.

A connection carries the pool's generation at its birth. A failure ends the generation: an idle connection of it is as
dead as the one that failed, or leads to a server that is not the right one any more. It is dropped without being asked,
since a link that went silent never answers. Nothing here runs in the background: who needs a connection makes it.
"""

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Final

import psycopg

from onelane.errors import StoreAway, StoreDenied, StoreUnavailable
from onelane.postgres.connection import ALL_IN_USE, DENIALS, Connection, refusal_of

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
        self._places = BoundedSemaphore(size)
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()

    @contextmanager
    def connection(self, wait_s: float, connect_s: float) -> Iterator[Connection]:
        """Lend a connection: wait for a place, then make one unless one is idle; or raise StoreUnavailable."""
        ends = time.monotonic() + wait_s
        if not self._places.acquire(timeout=max(0.0, wait_s)):
            raise StoreUnavailable("no connection to Postgres: the pool is used up, or it does not answer")
        try:
            connection = self._given_back(0) or self._made(connect_s, ends)
            try:
                yield connection
            finally:
                self._take_back(connection)
        finally:
            self._places.release()

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
        self._given_back(0)

    def _given_back(self, wait_s: float) -> Connection | None:
        """Return an idle connection to trust, and close those before it; None if there is none within `wait_s`."""
        ends = time.monotonic() + wait_s
        while True:
            try:
                connection = self._idle.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                return None
            if self._is_trusted(connection):
                return connection
            connection.close()

    def _made(self, connect_s: float, ends: float) -> Connection:
        """Make a connection; if the server allows no more of them, wait for one that another call gives back."""
        if time.monotonic() >= self._rest_until:
            try:
                return self._connect(min(CONNECT_MAX_S, connect_s), self._generation)
            except psycopg.OperationalError as error:
                self._refusal = refusal_of(error)
                self._rest_until = time.monotonic() + REST_S
        if self._refusal == ALL_IN_USE and (connection := self._given_back(ends - time.monotonic())):
            return connection
        kind = StoreDenied if self._refusal in DENIALS.values() else StoreAway
        raise kind(f"no connection to Postgres: {self._refusal}")

    def _take_back(self, connection: Connection) -> None:
        connection.used_at = time.monotonic()
        if self._is_trusted(connection):
            self._idle.put(connection)
        else:
            connection.close()

    def _is_trusted(self, connection: Connection) -> bool:
        now = time.monotonic()
        return (
            connection.generation == self._generation
            and connection.is_idle
            and now - connection.used_at < IDLE_MAX_S
            and now - connection.made_at < AGE_MAX_S
        )
