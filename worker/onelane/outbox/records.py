"""The outbox's SQL calls, many lanes' in one. Each may be repeated word for word: it answers the same.

What was marked, and what a provider has answered, is known here and nowhere else until it is stored: so each call is
tried again while Postgres is away, for COMMIT_HOLD_S, also while the process stops. Whoever ends it sooner cancels it.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Final
from uuid import UUID

from onelane.bot.memory import held
from onelane.config import Settings
from onelane.errors import StoreRefused, StoreUnavailable
from onelane.gathering import Gatherer
from onelane.model import Attachment, JsonObject, Lease
from onelane.outbox.reply import Begun, Fate, Settled, Waiting
from onelane.postgres.connection import Row
from onelane.postgres.db import Database
from onelane.turns.answers import Asking, answered, done
from onelane.turns.holds import OutageHold
from onelane.turns.idle import OF_NOBODY

Ask = Callable[[], Awaitable[JsonObject]]

READERS_MAX: Final = 2
STATES: Final = f"""
SELECT id, 'received' AS state, NULL AS last_error FROM outbox
 WHERE user_id = %(user_id)s AND id = ANY(%(ids)s::uuid[])
UNION ALL
SELECT id, CASE state WHEN 'failed' THEN 'dead' ELSE 'processed' END AS state, failure AS last_error FROM messages m
 WHERE user_id = %(user_id)s AND direction = 'out' AND id = ANY(%(ids)s::uuid[])
   AND NOT EXISTS (SELECT FROM outbox o WHERE o.user_id = m.user_id AND o.id = m.id)
UNION ALL {OF_NOBODY}"""  # noqa: S608 - a constant of ours
FILES: Final = """
SELECT id, uploaded, CASE WHEN uploaded IS NULL THEN data END AS data FROM reply_files WHERE id = ANY(%(ids)s)
"""
UPLOADED: Final = "UPDATE reply_files SET uploaded = %(uploaded)s, data = '' WHERE id = %(id)s"
ON_CHANNEL: Final = "SELECT user_id FROM outbox WHERE user_id = ANY(%(users)s) AND channel = %(channel)s"
OTHERS: Final = """
SELECT provider_id, coalesce(text, '') AS text FROM messages
 WHERE user_id = %(user_id)s AND turn_seq >= %(seq)s - 100 AND direction = 'out' AND provider_id IS NOT NULL
   AND id <> %(id)s
"""


class SendRecords:
    """Begin and settle, under the lease's fence."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Ask `database`."""
        self.breaker = database.breaker
        self._hold_s = settings.commit_hold_s
        self._deadline_s = settings.send_deadline_s
        self._database = database
        self._asking = {
            # A mark under which nobody sends any more would be found as a request that may have been made.
            "begin_sends": Asking(_gatherer(settings, database, "begin_sends"), is_left=True),
            "settle_sends": Asking(_gatherer(settings, database, "settle_sends")),
        }
        self._readers = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="outbox")

    async def begin(self, lease: Lease, cancelled: Event, full: Sequence[str] = ()) -> Begun:
        """Mark the user's next reply as being sent, unless its channel is `full`.

        A lost answer is asked for again under the same lease.
        """
        item = {**self._names(lease), "full": list(full)}
        asked_at = time.monotonic()

        async def ask() -> JsonObject:
            nonlocal asked_at
            asked_at = time.monotonic()
            return await self._call("begin_sends", item)

        return _begun(await self._held(ask, cancelled.is_set), asked_at)

    async def settle(self, lease: Lease, reply: Waiting, fate: Fate, *, goes_on: bool) -> Settled:
        """Store what becomes of a reply and, if the lane `goes_on`, mark its next.

        Raise StoreRefused for what Postgres refuses.
        """
        item = {**self._names(lease), "reply_id": str(reply.id), "attempt": reply.attempt, **fate.item()}
        try:
            return await self._settled(item, goes_on=goes_on)
        except StoreRefused:
            if goes_on:
                return await self._settled(item, goes_on=False)  # it may be the mark that was refused
            raise

    async def others(self, lease: Lease, reply: Waiting) -> dict[str, str]:
        """Return the texts of the user's other replies of late, by the provider's ids."""
        asked = {"user_id": lease.user_id, "seq": reply.seq, "id": reply.id}
        rows = await answered(self._readers.submit(self._database.rows, OTHERS, asked))
        return {row.provider_id: row.text for row in rows}

    async def on_channel(self, channel: str, users: Sequence[UUID]) -> set[UUID]:
        """Return those of `users` to whom replies wait on a channel."""
        asked = {"users": list(users), "channel": channel}
        return {row.user_id for row in await answered(self._readers.submit(self._database.rows, ON_CHANNEL, asked))}

    async def files(self, ids: list[UUID]) -> list[Row]:
        """Return the bytes of a reply's files, or how the provider names what was uploaded."""
        return await answered(self._readers.submit(self._database.rows, FILES, {"ids": ids}))

    async def note_uploaded(self, file_id: UUID, uploaded: Attachment) -> None:
        """Remember how the provider names a file."""
        noted = {"id": file_id, "uploaded": uploaded.model_dump_json(exclude_none=True)}
        await answered(self._readers.submit(self._database.rows, UPLOADED, noted))

    async def states(self, user_id: UUID, ids: list[str]) -> list[Row]:
        """Return id, state (received, processed; dead: failed) and last_error of those of `ids` of this user."""
        asked = {"user_id": user_id, "ids": ids}
        return await answered(self._readers.submit(self._database.rows, STATES, asked))

    async def _settled(self, item: JsonObject, *, goes_on: bool) -> Settled:
        asked_at = time.monotonic()

        async def ask() -> JsonObject:
            nonlocal asked_at
            asked_at = time.monotonic()
            return await self._call("settle_sends", {**item, "goes_on": goes_on})

        answer = await self._held(ask, lambda: False)
        following = answer.get("next")
        settled = Settled.model_validate({**answer, "next": None})
        return settled.model_copy(update={"next": _begun(following, asked_at)}) if following else settled

    async def _held(self, ask: Ask, is_over: Callable[[], bool]) -> JsonObject:
        """Ask, at growing pauses until it is done."""
        try:
            answer = await ask()
        except StoreUnavailable as error:
            with OutageHold(self.breaker, self._hold_s, is_over) as hold:
                answer = await held(ask, hold, error)
        self.breaker.close()
        return answer

    async def _call(self, function: str, item: JsonObject) -> JsonObject:
        """Ask one of the SQL functions that take a list, together with whoever else asks it now."""
        return done(await self._asking[function].ask(item, item["user_id"]))

    def _names(self, lease: Lease) -> JsonObject:
        return {
            "user_id": str(lease.user_id),
            "fence": lease.fence,
            "token": lease.token,
            "deadline_s": self._deadline_s,
        }


def _begun(answer: JsonObject, asked_at: float) -> Begun:
    """Read what was begun by a call that was made at `asked_at`."""
    reply = answer.get("reply")
    return Begun.model_validate({**answer, "reply": reply and {**reply, "asked_at": asked_at}})


def _gatherer(settings: Settings, database: Database, function: str) -> Gatherer:
    """Let begin and settle share the pool: a list that waits for a connection would wait for long."""
    return Gatherer(database.asks(function), at_once=settings.db_pool_max // 2)
