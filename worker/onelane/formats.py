"""The formats of settings: addresses, names, times. A value of another form is refused with what is allowed."""

import os
import re
from datetime import time
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from onelane.sentinels import sentinels_of

CHANNEL_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
CHANNEL_NAMES: Final = "a channel's name must be lower-case letters, digits, _ and -, at most 63"


def matching(pattern: str, message: str) -> AfterValidator:
    """Refuse text that is not wholly `pattern`; `message` is what is allowed."""

    def matched(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(message)
        return text

    return AfterValidator(matched)


def _postgres_url(url: str) -> str:
    """Accept the `postgres://` of hosting platforms."""
    url = url.replace("postgres://", "postgresql://", 1)
    if not url.startswith("postgresql://"):
        raise ValueError("must start with postgresql:// or postgres://")
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        if "pgbouncer=true" in url:
            raise ValueError("has pgbouncer=true: leave that out, and set PG_POOLER=transaction") from None
        if word := re.search(r'invalid URI query parameter: "(\w+)"', str(error)):
            raise ValueError(f"has a parameter that PostgreSQL's client does not know: {word[1]}") from None
        raise ValueError("must be an address as PostgreSQL's client reads it") from None
    return url


def _redis_url(url: str) -> str:
    if sentinels_of(url) is None and not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://")
    return url


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("must be a time zone of the IANA database, for example Europe/Paris") from error
    return name


def _whole_minute(value: object) -> object:
    """Read `HH:MM`; a day that starts at 06:00:07 is a mistake."""
    if isinstance(value, str):
        try:
            value = time.fromisoformat(value)
        except ValueError as error:
            raise ValueError("must be a time of day, for example 06:00") from error
    if value is not None and not isinstance(value, time):
        raise ValueError("must be a time of day, for example 06:00")
    if isinstance(value, time) and (value.second or value.microsecond or value.tzinfo):
        raise ValueError("must be a time of day in whole minutes, for example 06:00")
    return value


def _listed(value: Any) -> Any:
    """Read a list that is written with commas, each entry once."""
    return tuple(dict.fromkeys(part.strip() for part in value.split(","))) if isinstance(value, str) else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


ChannelName = Annotated[str, matching(CHANNEL_NAME.pattern, CHANNEL_NAMES)]
WorkerKinds = Annotated[tuple[Literal["in", "out"], ...], NoDecode, BeforeValidator(_listed), Field(min_length=1)]
HandlerPath = Annotated[
    str, matching(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", "must be module:function, for example mybot:handle")
]
PublicUrl = Annotated[
    str, matching(r"https?://[^\s?#]+", "must be http:// or https:// with host and path, without ? and #")
]
PostgresUrl = Annotated[str, AfterValidator(_postgres_url)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
RedisPrefix = Annotated[
    str, matching(r"[A-Za-z0-9:._-]{0,32}", "must be letters, digits, : . _ and -, at most 32, for example staging:")
]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
DayStart = Annotated[time, BeforeValidator(_whole_minute)]
Days = Annotated[int, Field(ge=1, le=36_500)]
Seconds = Annotated[int, Field(ge=1, le=366 * 86_400)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]


def database_of(url: str) -> str:
    """Name the database and host of an address, which PostgreSQL's own variables complete; no password, no user."""
    values = conninfo_to_dict(url)
    database = values.get("dbname") or os.environ.get("PGDATABASE") or values.get("user") or os.environ.get("PGUSER")
    host = values.get("hostaddr") or values.get("host") or os.environ.get("PGHOST") or "this machine"
    return f"database {database or 'of this user'} on {host}"


def redis_of(url: str) -> str:
    """Name the host and the database of an address; no password, no user."""
    if sentinels := sentinels_of(url):
        return f"{sentinels.service} of {','.join(f'{host}:{port}' for host, port in sentinels.places)}"
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}{parts.path.rstrip('/')}" if parts.hostname else parts.path
