"""A Redis client that puts REDIS_PREFIX in front of every key, of ours and of RQ's alike.

RQ has no setting for its keys. So the prefix is put on where a command leaves: whatever builds it, no key is without.
A command whose keys are not known here is refused, not sent. Values stay as they are, also where they name keys
(`rq:queues`, `rq:workers`), and channels for messages (`rq:pubsub:<worker>`) are no keys. The scripts in `lua/` get the
prefix as part of their text.
"""

from typing import Any, Final, cast

import redis
from redis.client import Pipeline


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KEYLESS: Final = _words(
    "AUTH CLIENT CONFIG DBSIZE DISCARD ECHO EXEC FLUSHALL FLUSHDB HELLO INFO MULTI PING PUBLISH PUBSUB SCRIPT SELECT"
    " TIME UNWATCH"
)
ONE_KEY: Final = _words(
    "DECR EXPIRE GET GETDEL GETEX HDEL HEXISTS HGET HGETALL HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HSCAN HSET INCR"
    " INCRBY LINDEX LLEN LPOP LPOS LPUSH LRANGE LREM LTRIM PERSIST PEXPIRE PTTL RPOP RPUSH SADD SCARD SET SETEX"
    " SISMEMBER SMEMBERS SMISMEMBER SPOP SRANDMEMBER SREM SSCAN STRLEN TTL TYPE XADD XDEL XLEN XRANGE XREVRANGE XTRIM"
    " ZADD ZCARD ZCOUNT ZINCRBY ZMSCORE ZRANDMEMBER ZRANGE ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYRANK ZREMRANGEBYSCORE"
    " ZREVRANGE ZSCAN ZSCORE"
)
TWO_KEYS: Final = _words("BLMOVE LMOVE RENAME RPOPLPUSH SMOVE")
ALL_KEYS: Final = _words("DEL EXISTS MGET TOUCH UNLINK WATCH")
KEYS_AND_TIMEOUT: Final = _words("BLPOP BRPOP")
COUNTED_KEYS: Final = _words("EVAL EVALSHA EVALSHA_RO EVAL_RO")


def prefixed(prefix: str, command: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a command as it is sent, with `prefix` in front of its keys."""
    name, *arguments = command
    first, last = _keys(name.split(" ")[0].upper(), arguments)
    keys = [prefix + (key.decode() if isinstance(key, bytes) else str(key)) for key in arguments[first:last]]
    return (name, *arguments[:first], *keys, *arguments[last:])


def _keys(name: str, arguments: list[Any]) -> tuple[int, int]:
    """Return where the keys among the arguments begin and end."""
    if name in KEYLESS:
        return 0, 0
    if name in ONE_KEY:
        return 0, 1
    if name in TWO_KEYS:
        return 0, 2
    if name in ALL_KEYS:
        return 0, len(arguments)
    if name in KEYS_AND_TIMEOUT:
        return 0, len(arguments) - 1
    if name in COUNTED_KEYS:
        return 2, 2 + int(arguments[1])
    raise ValueError(f"{name} is not sent: which of its arguments are keys is not known (REDIS_PREFIX is set)")


class PrefixedRedis(redis.Redis):
    """A client whose commands get `prefix`; an empty one changes nothing."""

    prefix: str = ""

    @classmethod
    def of(cls, pool: redis.ConnectionPool, prefix: str) -> "PrefixedRedis":
        """Make a client over a pool that it owns."""
        client = cast("PrefixedRedis", cls.from_pool(pool))
        client.prefix = prefix
        return client

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, its keys prefixed."""
        command = prefixed(self.prefix, args) if self.prefix else args
        return super().execute_command(*command, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Open a pipeline whose commands get the prefix, too."""
        pipeline = PrefixedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipeline.prefix = self.prefix
        return pipeline


class PrefixedPipeline(Pipeline):
    """A pipeline whose commands get `prefix`."""

    prefix: str = ""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, or keep it for `execute`, its keys prefixed."""
        command = prefixed(self.prefix, args) if self.prefix else args
        return super().execute_command(*command, **options)  # type: ignore[no-untyped-call]


def prefix_of(client: redis.Redis) -> str:
    """Return what a client puts in front of its keys."""
    return client.prefix if isinstance(client, PrefixedRedis) else ""
