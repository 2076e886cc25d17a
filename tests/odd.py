"""What somebody else may have put under any key of the catalogue in `onelane/keys.py`."""

import re
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Final
from uuid import UUID

import redis

from onelane import keys

Plant = Callable[[redis.Redis, str], object]

CATALOGUE: Final = re.findall(r"^\| (\S[^|]*?) *\|", keys.__doc__ or "", re.MULTILINE)[1:]
"""The patterns of all keys, as they are listed."""
WORKER: Final = "w"
OF_MESSAGES: Final = ("rq:results:<id>", "rq:job:<message id>")


def key_of(pattern: str, user: UUID | str, message: UUID | str) -> str:
    """Make a key of the catalogue for one user and one of their messages."""
    names = {
        "<kind>": keys.IN,
        "<id>": str(message if pattern in OF_MESSAGES else user),
        "<message id>": str(message),
        "<worker>": WORKER,
        "<name>": "duties" if pattern.startswith("duty:") else WORKER,
        "<process>": WORKER,
        "<who>": "somebody",
        "<channel>": "demo",
    }
    for name, value in names.items():
        pattern = pattern.replace(name, value)
    assert "<" not in pattern, f"what does {pattern} stand for?"
    return pattern


def is_a_users(pattern: str) -> bool:
    """Whether there is such a key for each user, or for each message."""
    return "<id>" in pattern or "<message id>" in pattern


TYPES: Final[Mapping[str, Plant]] = {
    "string": lambda client, key: client.set(key, "mine"),
    "list": lambda client, key: client.rpush(key, "mine"),
    "hash": lambda client, key: client.hset(key, "mine", "mine"),
    "set": lambda client, key: client.sadd(key, "mine"),
    "zset": lambda client, key: client.zadd(key, {"mine": 1}),
    "stream": lambda client, key: client.xadd(key, {"mine": "mine"}),
}


def _hash(**fields: str | bytes) -> Plant:
    return lambda client, key: client.hset(key, mapping=fields)  # type: ignore[arg-type]  # its types forbid bytes


def _text(value: str | bytes) -> Plant:
    return lambda client, key: client.set(key, value)


def _many(client: redis.Redis, key: str) -> None:
    client.rpush(key, *(str(nr) for nr in range(2_000)))


NUMBERS: Final[tuple[str | bytes, ...]] = (
    "",
    "many",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "0x7fffffffffffffff",
    "9" * 400,
    b"\xff\x00",
)
VALUES: Final[Mapping[str, Mapping[str, Plant]]] = {
    "lock:<kind>:<id>": {
        "only a token": _hash(token=b"\xff"),
        **{f"until {value!r}": _hash(token="w:1", until=value, fence=value, paced=value) for value in NUMBERS},
    },
    "session:user:<id>": {
        "binary": _text(b"\xff\xfe"),
        "empty": _text(""),
        "long": _text("a" * 100_000),
        "dashes": _text("-" * 36),
    },
    "pace:<kind>:<id>": {str(value): _text(value) for value in NUMBERS},
    "rq:queue:user:<id>": {"2,000 of them": _many, "binary": lambda client, key: client.rpush(key, b"\xff", b"")},
    "rq:failed:user:<id>": {"binary": lambda client, key: client.zadd(key, {b"\xff": inf, b"": -inf})},
    "rq:job:<message id>": {"buried": _hash(buried=b"\xff", origin=b"\xff"), "empty fields": _hash(status="")},
    "fence": {str(value): _text(value) for value in NUMBERS},
    "lanes:<kind>": {
        "no users": lambda client, key: client.zadd(key, {b"nobody": 0, b"\xff\xfe": -inf, b"": inf, b"later": 1e308})
    },
    "buried:<kind>": {"no messages": lambda client, key: client.zadd(key, {b"\xff": 0, b"": 1, b"a b": inf})},
    "lease:<kind>:<worker>": {
        "no leases": _hash(call="1"),
        **{
            value: _hash(call="1", leases=value)
            for value in ("{", "5", "[5]", '[["a"]]', "null", "[{}]", '[[null,""]]')
        },
    },
    "numbers": {"no numbers": lambda client, key: client.hset(key, "onelane_turns:committed", "many")},
    "cursor:<kind>": {"no user": _text("nobody"), "binary": _text(b"\xff")},
    "rq:workers": {"no workers": lambda client, key: client.sadd(key, b"\xff", "", keys.RQ_QUEUES, keys.lanes())},
    "rq:worker:<name>": {
        str(value): _hash(last_heartbeat=value, queues=b"\xff") for value in (*NUMBERS, "0001-01-01T00:00:00", "never")
    },
    "rq:queues": {"no queues": lambda client, key: client.sadd(key, b"\xff", "")},
    "wake:<kind>": {"2,000 of them": _many},
}
"""Things of the right type that are none of ours."""


def plants_for(pattern: str) -> Iterator[tuple[str, Plant]]:
    """Give what may stand there: each type of Redis, and odd things of the right one."""
    yield from TYPES.items()
    yield from VALUES.get(pattern, {}).items()
