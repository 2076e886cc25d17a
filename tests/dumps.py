"""Everything that the servers have, to look for what must not be there."""

from typing import Any

from onelane.postgres.db import Database

TABLES = """
SELECT c.relname AS name FROM pg_class c
 WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'users'::regclass)
"""
ROWS = r"""
SELECT (to_jsonb(t) || coalesce((SELECT jsonb_object_agg(key, encode(decode(substr(value, 3), 'hex'), 'escape'))
                                   FROM jsonb_each_text(to_jsonb(t)) WHERE value ~ '^\\x'), '{{}}'))::text AS row
  FROM {} t
"""


def everything_in(client: Any) -> bytes:
    """Read all keys and values of a Redis, whatever their types."""
    read = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    found = [(key, read[kind](key)) for key in client.scan_iter() if (kind := client.type(key)) != b"none"]
    return repr(found).encode()


def everything_in_postgres(database: Database) -> str:
    """Read all rows of all tables, bytes as text."""
    tables = [row.name for row in database.rows(TABLES)]
    return "\n".join(row.row for table in tables for row in database.rows(ROWS.format(table)))
