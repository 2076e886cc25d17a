"""Connections to Postgres: at most so many, each lent to one call at a time, and none that is older than a failure.

A connection carries the pool's generation at its birth. A failure ends the generation: an idle connection of it is as
dead as the one that failed, or leads to a server that is not the right one any more. It is dropped without being asked,
since a link that went silent never answers.

The driver knows no deadline for connecting that is as short as a call's may be. So each connection is made in a thread,
when somebody needs it. Who waits for it leaves in time; it has its place until it is made, and is the next caller's.
"""

import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import ExitStack, contextmanager
from threading import BoundedSemaphore, Thread
from typing import Final

import psycopg

from onelane.errors import StoreAway, StoreDenied, StoreUnavailable
from onelane.postgres.connection import ALL_IN_USE, DENIALS, Connection, refusal_of
from onelane.postgres.faults import Unanswered

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
        self._is_closed = False

    @contextmanager
    def connection(self, wait_s: float, within_s: float, *, is_new: bool = False) -> Iterator[Connection]:
        """Lend a connection `within_s`: wait for a place, then make one unless one is idle; or raise StoreUnavailable.

        What others have is waited for no longer than `wait_s`. One that `is_new` is made in any case.
        """
        ends = time.monotonic() + within_s
        waits_until = min(ends, time.monotonic() + wait_s)
        if not self._places.acquire(timeout=max(0.0, waits_until - time.monotonic())):
            raise StoreUnavailable("no connection to Postgres: the pool is used up, or it does not answer")
        with ExitStack() as place:
            place.callback(self._places.release)
            connection = self._idle_one(is_new=is_new) or self._made(ends, waits_until, place)
            try:
                yield connection
            finally:
                self._take_back(connection)

    def forget(self, connection: Connection) -> None:
        """Note that `connection` failed: it and all that are as old are dropped."""
        if connection.generation == self._generation:
            self._generation += 1

    def forget_older(self, connection: Connection) -> None:
        """Note that `connection` is new and works, where one before it did not: those as old as that are dropped."""
        self.forget(connection)
        connection.generation = self._generation

    def forget_all(self) -> None:
        """Drop all connections that there are, each when its turn comes."""
        self._generation += 1

    def close(self) -> None:
        """Close what is idle, and what is lent when it comes back; also what a thread of ours makes after that."""
        self._is_closed = True
        self._given_back(0)

    def _idle_one(self, *, is_new: bool) -> Connection | None:
        """Return an idle connection, if there is one. What `is_new` takes its place."""
        if (connection := self._given_back(0)) is None or not is_new:
            return connection
        connection.close()
        return None

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

    def _made(self, ends: float, waits_until: float, place: ExitStack) -> Connection:
        """Make a connection; if the server allows no more of them, wait for one that another call gives back.

        Whoever goes on making it when it is too late keeps the place.
        """
        if time.monotonic() >= self._rest_until:
            try:
                return self._made_beside(ends, place)
            except psycopg.OperationalError:
                pass  # its maker has noted what it says
        if self._refusal == ALL_IN_USE and (connection := self._given_back(waits_until - time.monotonic())):
            return connection
        kind = StoreDenied if self._refusal in DENIALS.values() else StoreAway
        raise kind(f"no connection to Postgres: {self._refusal}")

    def _made_beside(self, ends: float, place: ExitStack) -> Connection:
        """Let a thread make a connection, and wait for it until `ends`."""
        made: Future[Connection] = Future()
        try:
            Thread(target=self._make, args=(made,), name="connect", daemon=True).start()
        except RuntimeError as error:
            raise StoreUnavailable("no thread to connect to Postgres") from error
        try:
            return made.result(max(0.0, ends - time.monotonic()))
        except TimeoutError as error:
            if made.cancel():
                place.pop_all()
                raise Unanswered("no connection to Postgres in time") from error
            return made.result(0)

    def _make(self, made: "Future[Connection]") -> None:
        """Make a connection for whoever waits, or else for the next who needs one."""
        answer: Connection | Exception
        try:
            answer = self._connect(CONNECT_MAX_S, self._generation)
        except Exception as error:  # noqa: BLE001 - who waits raises it
            answer = error
            if isinstance(error, psycopg.OperationalError):
                self._refusal = refusal_of(error)
                self._rest_until = time.monotonic() + REST_S
        try:
            if isinstance(answer, Exception):
                made.set_exception(answer)
            else:
                made.set_result(answer)
        except InvalidStateError:  # nobody waits any more
            if not isinstance(answer, Exception):
                self._take_back(answer)
            self._places.release()

    def _take_back(self, connection: Connection) -> None:
        connection.used_at = time.monotonic()
        if self._is_trusted(connection):
            self._idle.put(connection)
            if self._is_closed:  # in this moment
                self._given_back(0)
        else:
            connection.close()

    def _is_trusted(self, connection: Connection) -> bool:
        now = time.monotonic()
        return (
            not self._is_closed
            and connection.generation == self._generation
            and connection.is_idle
            and now - connection.used_at < IDLE_MAX_S
            and now - connection.made_at < AGE_MAX_S
        )
