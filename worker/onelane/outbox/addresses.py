"""Where a request goes: the server, and what the request's head says of it."""

from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import httpx2

ADDRESSES_MAX: Final = 128
FIXED: Final = (("Accept", "*/*"), ("Accept-Encoding", "identity"), ("User-Agent", "onelane"))
"""What every head says."""
PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """What a connection leads to."""

    is_secure: bool
    host: str
    port: int


class Address(NamedTuple):
    """Where a request goes."""

    origin: Origin
    headers: Sequence[tuple[str, str]]
    """What is said of it in every request's head."""
    target: bytes


@lru_cache(ADDRESSES_MAX)
def address_of(url: str) -> Address:
    """Take an address apart, as httpx2 does; raise its InvalidURL and UnsupportedProtocol."""
    parsed = httpx2.URL(url)
    if parsed.scheme not in PORTS or not parsed.host:
        raise httpx2.UnsupportedProtocol("an address begins with https://, and names a host")
    host = parsed.raw_host.decode("ascii")
    origin = Origin(parsed.scheme == "https", host, parsed.port or PORTS[parsed.scheme])
    named = f"{parsed.username}:{parsed.password}".encode()
    known = [("Authorization", f"Basic {b64encode(named).decode()}")] if parsed.userinfo else []
    return Address(origin, [("Host", parsed.netloc.decode("ascii")), *FIXED, *known], parsed.raw_path)
