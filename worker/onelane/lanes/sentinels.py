"""Where the primary is: Sentinels know, and are asked for each connection that is made.

Whoever answered last is asked first. The others share what is left of the time, so that one that is silent costs a part
of it once.
"""

import time
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from onelane.sentinels import Sentinels

UNKNOWN_SERVICE = "No such master with that name"
"""Sentinel's own words, where it has some."""


class Primary:
    """The primary of one service."""

    def __init__(self, sentinels: Sentinels, connection: Callable[..., Any], options: dict[str, Any]) -> None:
        """Ask with what `connection` makes of a host, a port and `options`."""
        self._places = sentinels.places
        self._service = sentinels.service
        self._connection = connection
        self.newest: tuple[str, int] | None = None
        """Where it was when a Sentinel was last asked: a connection to another place is outdated."""
        self._options = {**options, **sentinels.access, "retry": Retry(NoBackoff(), 0)}

    def place(self, within_s: float) -> tuple[str, int]:
        """Return its host and port; raise what the last Sentinel answered, or why it did not."""
        failure: Exception = OSError("no Sentinel has answered")
        ends, places = time.monotonic() + within_s, self._places
        for nr, place in enumerate(places):
            left_s = ends - time.monotonic()
            if left_s <= 0:
                break
            try:
                found = self._ask(place, left_s / (len(places) - nr))
            except (redis.RedisError, OSError) as error:
                failure = error
                continue
            self._places, self.newest = (place, *places[:nr], *places[nr + 1 :]), found
            return found
        raise failure

    def _ask(self, place: tuple[str, int], within_s: float) -> tuple[str, int]:
        host, port = place
        times = {"socket_timeout": within_s, "socket_connect_timeout": within_s}
        connection = self._connection(host=host, port=port, **times, **self._options)
        try:
            connection.connect()
            connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            found = connection.read_response()
        finally:
            connection.disconnect()
        if found is None:
            raise redis.exceptions.ResponseError(UNKNOWN_SERVICE)
        return found[0].decode(), int(found[1])
