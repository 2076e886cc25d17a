"""Everything that is stored of one person: under which users, by which names, and how a webhook shows them."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from json import dumps
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from onelane.channels import Provider
from onelane.model import Value
from onelane.postgres.connection import Row

CORE_MIN: Final = 7
"""What is shorter stands in what others wrote, too: it counts only where it is a whole value."""
WHOLE: Final = ('"{}"', ":{},", ": {},", ":{}}}", ": {}}}", "={}&")
NAMES: Final = """
SELECT channel, alias AS name FROM user_aliases WHERE user_id = ANY(%(users)s)
UNION SELECT channel, sender FROM users WHERE id = ANY(%(users)s)
UNION SELECT channel, unnest(former_names) FROM users WHERE id = ANY(%(users)s)
"""
ROWS: Final = "SELECT to_jsonb(t) AS row FROM {table} t WHERE {whose}"
BY_USER: Final = "user_id = ANY(%(users)s)"
SENT_IDS: Final = f"""
SELECT channel, provider_id FROM messages WHERE {BY_USER}
UNION ALL
SELECT p.channel, p.provider_id FROM messages m JOIN provider_messages p ON p.reply_id = m.id AND p.is_extra
 WHERE m.{BY_USER}
"""  # noqa: S608 - constants of ours
BY_LINE: Final = {
    "accepted_deliveries": """(channel, external_id) IN (
        SELECT channel, external_id FROM messages WHERE user_id = ANY(%(users)s)
        UNION ALL SELECT channel, external_id FROM inbox WHERE user_id = ANY(%(users)s)
        UNION ALL SELECT channel, external_id FROM accepted_deliveries WHERE user_id = ANY(%(users)s) AND is_alone)""",
    "payloads": """message_id IN (
        SELECT id FROM messages WHERE user_id = ANY(%(users)s)
        UNION ALL SELECT id FROM inbox WHERE user_id = ANY(%(users)s))""",
    "provider_messages": f"(channel, provider_id) IN ({SENT_IDS})",
    "tool_calls": "session_id IN (SELECT id FROM conversation_sessions WHERE user_id = ANY(%(users)s))",
}
"""Of the tables that have no index by user, which rows are a person's."""
STATUSES: Final = f"""
SELECT to_jsonb(s) AS row FROM reply_statuses s WHERE (channel, provider_id) IN ({SENT_IDS})
UNION SELECT to_jsonb(s) FROM reply_statuses s WHERE key IN (SELECT id FROM messages WHERE {BY_USER})
UNION SELECT to_jsonb(s) FROM reply_statuses s
       WHERE channel = %(channel)s AND participant = ANY(%(names)s) AND participant <> ''
"""  # noqa: S608 - constants of ours
QUARANTINE: Final = """
SELECT to_jsonb(q) || jsonb_build_object('body', encode(body, 'escape'), 'digest', encode(digest, 'hex')) AS row
  FROM quarantined_payloads q
 WHERE q.channel = %(channel)s AND shows_name(q.body, %(spellings)s)
"""
AUDIT: Final = "SELECT to_jsonb(a) AS row FROM audit a WHERE subject = ANY(%(users)s::text[]) ORDER BY nr"
PAGE: Final = 500

Transaction = psycopg.Connection[Row]


class Person(Value):
    """One person on one channel."""

    users: tuple[UUID, ...]
    channel: str
    names: tuple[str, ...]
    ways: tuple[tuple[str, ...], ...]
    """The names as webhooks have them: each in parts, which are all in the body."""

    @property
    def values(self) -> dict[str, Any]:
        """What the queries ask by."""
        spellings = Jsonb([[sorted(spellings_of(part)) for part in way] for way in self.ways])
        return {"users": list(self.users), "channel": self.channel, "names": list(self.names), "spellings": spellings}


def find_person(transaction: Transaction, user_id: UUID, providers: Mapping[str, Provider]) -> Person | None:
    """Return the person behind a user, with all users that were merged; None when there is no such user.

    A channel that is configured no more has no provider: its webhooks have the names as they are.
    """
    row = transaction.execute("SELECT same_person(%s) AS users", (user_id,)).fetchone()
    if row is None or row.users is None:
        return None
    found = transaction.execute(NAMES, {"users": row.users}).fetchall()
    channel, names = found[0].channel, tuple(sorted({one.name for one in found}))
    provider = providers.get(channel)
    given = ((name, tuple(way)) for name in names for way in (provider.ways(name) if provider else [(name,)]))
    ways = {way if all(way) else (name,) for name, way in given}  # an empty part is in every body
    return Person(users=row.users, channel=channel, names=names, ways=tuple(sorted(ways)))


def rows_of(transaction: Transaction, person: Person) -> Iterator[tuple[str, Any]]:
    """Read every row of a person with its table's name, from Postgres page by page."""
    yield from _rows(transaction, person, "users", ROWS.format(table="users", whose="id = ANY(%(users)s)"))
    for found in transaction.execute("SELECT tables_of_users() AS name").fetchall():
        query = ROWS.format(table=found.name, whose=BY_LINE.get(found.name, BY_USER))
        yield from _rows(transaction, person, found.name, query)
    for table, query in (("reply_statuses", STATUSES), ("quarantined_payloads", QUARANTINE), ("audit", AUDIT)):
        yield from _rows(transaction, person, table, query)


def _rows(transaction: Transaction, person: Person, table: str, query: str) -> Iterator[tuple[str, Any]]:
    with transaction.cursor(f"export_{table}") as cursor:
        cursor.itersize = PAGE
        cursor.execute(query, person.values)
        for found in cursor:
            yield table, found.row


def spellings_of(name: str) -> set[str]:
    """Return how a webhook may spell a name: as it is, in JSON, in a form, its digits alone, or in base64."""
    plain = {name, dumps(name)[1:-1], quote(name, safe="")}
    if len(name) < CORE_MIN:
        return {form.format(one) for one in plain for form in WHOLE}
    digits = "".join(letter for letter in name if letter.isdigit())
    cores = {name, *([digits] if len(digits) >= CORE_MIN else [])}
    return plain | cores | {_base64(core.encode(), offset) for core in cores for offset in range(3)}


def _base64(core: bytes, offset: int) -> str:
    """Return the letters that base64 has for `core` wherever it begins `offset` bytes after a group of three."""
    coded = b64encode(b"\0" * offset + core).decode()
    first, last = (0, 2, 3)[offset], len(core) + offset
    return coded[first : last // 3 * 4 + (0, 1, 2)[last % 3]]
