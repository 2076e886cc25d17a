"""Connections to Redis: redis-py's own, but that the time for connecting is for all that is waited for."""

import time
from typing import Any
from urllib.parse import urlsplit

import redis

from onelane.addresses import addresses_of


class Connection(redis.Connection):
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


def connection_class(url: str) -> dict[str, Any]:
    """Return the pool's argument that names the class; for a socket in a folder there is none."""
    classes = {"redis": Connection, "rediss": TLSConnection}
    found = classes.get(urlsplit(url).scheme)
    return {"connection_class": found} if found else {}
