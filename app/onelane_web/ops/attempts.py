"""How often a password may be tried: a few times from one address, more from one site, and slowly when all try much.

Counted in Redis, for all web processes together. An attempt is counted before the password is checked, so that many
attempts at once gain nothing. The keys are listed in `onelane/keys.py`.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

import redis

from onelane import keys
from onelane.errors import LanesUnavailable
from onelane.lanes.refusals import UNREADABLE

WINDOW_S: Final = 15 * 60
PER_ADDRESS_MAX: Final = 5
ALL_MAX: Final = 100
KNOWN_S: Final = 30 * 86_400
PER_SITE_MAX: Final = 20
SLOW_S: Final = 10
"""What an address waits before each attempt, while all together have made ALL_MAX."""
V6_BITS: Final = 128
V6_SUBSCRIBER, V6_SITE = 64, 48
"""One subscriber has a network of the first size, a site of the second, and each can use any address in it."""
NOBODY: Final = "unknown"
PORT: Final = re.compile(r"\[([^\]]*)\](?::\d+)?|([\d.]+):\d+")
"""What some proxies add."""


class Attempts:
    """Counts attempts to log in. Raises LanesUnavailable: an attempt that cannot be counted is not allowed."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def wait_s(self, address: str) -> int:
        """Count an attempt from `address`; return 0 when it may be made, else the seconds until one may be made."""
        who, site = _digests(address)
        if (wait_s := self._slowed_s(who)) > 0:
            return wait_s
        self._count(keys.ATTEMPTS_ALL)
        for counted, most in ((who, PER_ADDRESS_MAX), (site, PER_SITE_MAX)):
            tried, ttl_s = self._count(keys.attempts(counted))
            if tried > most:
                return ttl_s
        return 0

    def _slowed_s(self, who: str) -> int:
        """Return how long an address has to wait because all together try much; not one that has logged in before.

        Whoever knows the password gets in all the same, and who guesses it waits before each guess.
        """
        with self._client.pipeline() as pipeline:
            pipeline.get(keys.ATTEMPTS_ALL)
            pipeline.exists(keys.known_address(who))
            pipeline.ttl(keys.slowed(who))
            answers: tuple[bytes | None, int, int] = self._ask(pipeline.execute)
        tried, is_known, left_s = answers
        if is_known or int(tried or 0) < ALL_MAX:
            return 0
        if left_s < 0:
            self._ask(lambda: self._client.set(keys.slowed(who), 1, nx=True, ex=WINDOW_S))
            return SLOW_S
        if (wait_s := SLOW_S - (WINDOW_S - left_s)) <= 0:
            self._ask(lambda: self._client.delete(keys.slowed(who)))
        return max(0, wait_s)

    def succeeded(self, address: str) -> None:
        """Forget an address' attempts, and remember the address: the limit for all does not lock it out."""
        who, site = _digests(address)
        with self._client.pipeline() as pipeline:
            pipeline.delete(keys.attempts(who), keys.attempts(site), keys.slowed(who))
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


def _digests(address: str) -> tuple[str, str]:
    """Return digests that stand for an address' subscriber, and for the site."""
    subscriber, site = _networks(address)
    return _digest(f"onelane {subscriber}"), _digest(f"onelane site {site}")


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:20]


def _networks(address: str) -> tuple[str, str]:
    """Return an address' subscriber and site; what is no address at all is one."""
    port = PORT.fullmatch(address)
    try:
        parsed = ip_address((port[1] or port[2]) if port else address)
    except ValueError:
        return NOBODY, NOBODY
    if isinstance(parsed, IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    if isinstance(parsed, IPv4Address):
        return str(parsed), str(parsed)
    return _first(parsed, V6_SUBSCRIBER), _first(parsed, V6_SITE)


def _first(address: IPv6Address, bits: int) -> str:
    return f"{int(address) >> (V6_BITS - bits):x}/{bits}"
