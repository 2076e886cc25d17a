"""How often a password may be tried: a few times from one address, and a bounded number of times from all.

Counted in Redis, for all web processes together. An attempt is counted before the password is checked, so that many
attempts at once gain nothing. The keys are listed in `onelane/keys.py`.
"""

from collections.abc import Callable
from hashlib import sha256
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final

import redis

from onelane import keys
from onelane.errors import LanesUnavailable
from onelane.lanes.refusals import UNREADABLE

WINDOW_S: Final = 15 * 60
PER_ADDRESS_MAX: Final = 5
ALL_MAX: Final = 100
KNOWN_S: Final = 30 * 86_400
V6_PREFIX: Final = 64
"""One subscriber has a network of this size, and can use any address in it."""


class Attempts:
    """Counts attempts to log in. Raises LanesUnavailable: an attempt that cannot be counted is not allowed."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def wait_s(self, address: str) -> int:
        """Count an attempt from `address`; return 0 when it may be made, else the seconds until one may be made."""
        who = _digest(address)
        tried, ttl_s = self._count(keys.attempts(who))
        if tried > PER_ADDRESS_MAX:
            return ttl_s
        tried, ttl_s = self._count(keys.ATTEMPTS_ALL)
        if tried > ALL_MAX and not self._ask(lambda: self._client.exists(keys.known_address(who))):
            return ttl_s
        return 0

    def succeeded(self, address: str) -> None:
        """Forget an address' attempts, and remember the address: the limit for all does not lock it out."""
        who = _digest(address)
        with self._client.pipeline() as pipeline:
            pipeline.delete(keys.attempts(who))
            pipeline.set(keys.known_address(who), 1, ex=KNOWN_S)
            self._ask(pipeline.execute)

    def _count(self, key: str) -> tuple[int, int]:
        """Count one more in a window that began with its first; return the count and the seconds left."""
        with self._client.pipeline() as pipeline:
            pipeline.set(key, 0, nx=True, ex=WINDOW_S)
            pipeline.incr(key)
            pipeline.ttl(key)
            _, tried, ttl_s = self._ask(pipeline.execute)
        return tried, max(1, ttl_s)

    @staticmethod
    def _ask(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (redis.exceptions.RedisError, OSError, *UNREADABLE) as error:
            raise LanesUnavailable(f"Redis did not count: {type(error).__name__}") from error


def _digest(address: str) -> str:
    """Return a digest that stands for an address."""
    return sha256(f"onelane {_subscriber(address)}".encode()).hexdigest()[:20]


def _subscriber(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(ip_network((parsed, V6_PREFIX), strict=False))
    return address
