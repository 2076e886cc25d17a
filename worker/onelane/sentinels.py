"""An address of Sentinels, which know where Redis' primary is: `redis+sentinel://host:26379,host:26379/service/0`."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

SENTINEL_URL: Final = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<user>[^/@]*)@)?(?P<places>[^/@?#]+)/(?P<service>[\w.-]+)"
    r"(?:/(?P<database>\d+))?(?:\?(?P<access>.+))?"
)
SENTINEL_PLACE: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]]+))(?::(?P<port>\d{1,5}))?")
SENTINEL_PORT: Final = 26_379
SENTINEL_ACCESS: Final = {"sentinel_username": "username", "sentinel_password": "password"}


class Sentinels(NamedTuple):
    """An address of Sentinels, which know where the primary is."""

    places: tuple[tuple[str, int], ...]
    service: str
    primary: str
    """The primary's address as redis-py reads it; its host is not known yet."""
    access: Mapping[str, str]
    """User and password for the Sentinels themselves."""


def sentinels_of(url: str) -> Sentinels | None:
    """Take an address of Sentinels apart; None when it is of another kind. Raise ValueError with what is allowed."""
    if not url.startswith(("redis+sentinel://", "rediss+sentinel://")):
        return None
    match = SENTINEL_URL.fullmatch(url)
    places = [SENTINEL_PLACE.fullmatch(place) for place in match["places"].split(",")] if match else [None]
    access = dict(parse_qsl(match["access"] or "")) if match else {}
    if match is None or None in places or access.keys() - SENTINEL_ACCESS.keys():
        raise ValueError(
            "must be redis+sentinel://user:password@host:26379,host:26379/service/0, and may end in"
            " ?sentinel_username=…&sentinel_password=…"
        )
    return Sentinels(
        places=tuple(
            (place["ipv6"] or place["host"], int(place["port"] or SENTINEL_PORT)) for place in places if place
        ),
        service=match["service"],
        primary=f"{match['scheme']}://{match['user'] or ''}@primary/{match['database'] or 0}",
        access={SENTINEL_ACCESS[name]: value for name, value in access.items()},
    )
