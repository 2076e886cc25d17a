"""Connections to Redis: redis-py's own, but that the time for connecting is for all that is waited for.

A server that has become a replica keeps its connections, and refuses every write. So a connection on which that was
answered is made anew before it is used again: its name, or its Sentinels, may lead to the new primary.
"""

import time
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.connection import AbstractConnection

from onelane import forks
from onelane.addresses import addresses_of
from onelane.lanes.sentinels import Primary
from onelane.sentinels import sentinels_of


class FollowingConnection(AbstractConnection):
    """A connection that does not stay with a server that takes no writes."""

    _leads_to_a_replica = False

    def connect(self) -> None:
        """Connect, unless it is connected with a server that may be the primary."""
        if self._is_outdated():
            self.disconnect()  # type: ignore[no-untyped-call]
        self._leads_to_a_replica = False
        if self._sock is None:
            with forks.making_a_connection():
                super().connect()  # type: ignore[no-untyped-call]

    def _is_outdated(self) -> bool:
        return self._leads_to_a_replica

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read an answer, and see whether a replica gives it. Redis 6.2 quotes a script's error inside its own."""
        try:
            return super().read_response(*args, **options)
        except redis.exceptions.ResponseError as error:
            self._leads_to_a_replica |= isinstance(error, redis.exceptions.ReadOnlyError) or "-READONLY " in str(error)
            raise


class Connection(FollowingConnection, redis.Connection):
    """A connection whose host is looked up under a deadline, and whose addresses share what is left of it."""

    def _connect(self) -> Any:
        """Connect to the first address that answers."""
        host, within_s = self.host, float(self.socket_connect_timeout or 0)
        ends, failure = time.monotonic() + within_s, OSError("the host has no address")
        for address in addresses_of(host, within_s):
            left_s = ends - time.monotonic()
            if left_s <= 0:
                break
            # Only this thread uses the connection: a number needs no look-up, and is the host's for a moment.
            self.host, self.socket_connect_timeout = address, left_s
            try:
                return super()._connect()  # type: ignore[no-untyped-call]
            except OSError as error:
                failure = error
            finally:
                self.host, self.socket_connect_timeout = host, within_s
        raise failure


class TLSConnection(redis.SSLConnection, Connection):
    """The same with TLS: the certificate is compared with the host's name."""


class SocketConnection(FollowingConnection, redis.UnixDomainSocketConnection):
    """A connection by a socket in a folder."""


class SentinelConnection(Connection):
    """A connection to the server that Sentinels call the primary at that moment. They get half of the time."""

    def __init__(self, primary: Primary, **options: Any) -> None:
        """Take the rest as any connection does."""
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._primary = primary

    def _is_outdated(self) -> bool:
        return super()._is_outdated() or (self.host, self.port) != self._primary.newest

    def _connect(self) -> Any:
        within_s = float(self.socket_connect_timeout or 0)
        self.host, self.port = self._primary.place(within_s / 2)
        self.socket_connect_timeout = within_s / 2
        try:
            return super()._connect()
        finally:
            self.socket_connect_timeout = within_s


class TLSSentinelConnection(redis.SSLConnection, SentinelConnection):
    """The same with TLS, also to the Sentinels: the certificate is compared with the host that they name."""


CLASSES = {"redis": Connection, "rediss": TLSConnection, "unix": SocketConnection}


def pool_arguments(url: str, tls: dict[str, Any]) -> dict[str, Any]:
    """Return what a pool needs to know of an address; `tls` are redis-py's options, for where TLS is spoken."""
    sentinels = sentinels_of(url)
    options = tls if url.startswith("rediss") else {}
    if sentinels is None:
        return {"url": url, "connection_class": CLASSES[urlsplit(url).scheme], **options}
    asking = TLSConnection if options else Connection
    return {
        "url": sentinels.primary,
        "connection_class": TLSSentinelConnection if options else SentinelConnection,
        "primary": Primary(sentinels, asking, options),
        **options,
    }
