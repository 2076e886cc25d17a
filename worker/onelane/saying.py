"""What is said to a user from outside a turn: it goes into the user's out lane, behind what turns have said."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from onelane.bot.reply import Reply, uploads_in
from onelane.channels.normalizing import Normalizer
from onelane.channels.provider import Provider
from onelane.channels.senders import row_of
from onelane.channels.sending import Piece
from onelane.channels.verdicts import Unsendable, Word
from onelane.deliveries import Delivery
from onelane.errors import StoreUnavailable
from onelane.inbox.items import content_hash
from onelane.lanes.arrivals import Arrival
from onelane.lanes.enqueueing import Enqueueing
from onelane.model import JsonObject, Value
from onelane.postgres.db import Clock, Database, database_clock
from onelane.postgres.faults import refusal, sqlstate_of
from onelane.telemetry import tracing
from onelane.telemetry.log import event
from onelane.telemetry.numbers import SAID

SAY_S: Final = 2.5
SAY: Final = "SELECT say(%s) AS said FROM set_config('lock_timeout', '1s', true)"
"""Postgres ends the wait for a row that somebody holds before we do: a call that we end goes on waiting there."""
TRIES: Final = 3
"""The user may be merged with another meanwhile: then it is said to that one."""
REFUSALS: Final = {
    "opted_out": (Word.OPTED_OUT, "the user wants no more messages"),
    "unknown": (Word.NO_ROUTE, "nobody has this name or id on the channel"),
}


class Said(Value):
    """What stands in the outbox."""

    user_id: UUID
    ids: tuple[UUID, ...]
    """Of its messages, in order: a provider may need several. None where retention has taken what was said before."""
    session_id: UUID | None
    """The open session in whose history it is, if one was open."""
    duplicate: bool
    """It was said before, under the same key: nothing is said twice."""


class Saying:
    """Says things on all channels."""

    def __init__(
        self,
        database: Database,
        out_lanes: Enqueueing,
        providers: Mapping[str, Provider],
        spellings: Mapping[str, Normalizer],
        now: Clock = database_clock,
    ) -> None:
        """Take what each channel has, by its name; few have a normalizer."""
        self._database = database
        self._out_lanes = out_lanes
        self._senders = {channel: provider.sender for channel, provider in providers.items()}
        self._spellings = spellings
        self._now = now

    def say(self, channel: str, user: str | UUID, reply: Reply, key: str | None = None) -> Said:
        """Say something to a user, named by an alias or by our id; it is committed when this returns.

        Whoever has never written becomes a user, where the channel can send. Raise Unsendable for what cannot be said,
        StoreUnavailable for what may be said later: under the same `key` nothing is said twice.
        """
        reply = reply.renewed()
        rows = self._rows(channel, Piece.model_validate(reply.said()))
        now = self._now()
        item = {
            "channel": channel,
            "user": str(user) if isinstance(user, UUID) else self._spelled(channel, user),
            "is_created": self._senders[channel] is not None,
            "key": key or str(uuid4()),
            "replies": rows,
            "files": uploads_in([reply]),
            "content_hash": content_hash({"text": [row["text"] for row in rows]}),
            "now": now and now.isoformat(),
        }
        with tracing.saying(channel):
            answer = self._asked({**item, **tracing.traceparent()})
        SAID.count(answer["outcome"])
        if answer["outcome"] in REFUSALS:
            raise Unsendable(*REFUSALS[answer["outcome"]])
        said = Said(**answer, duplicate=answer["outcome"] == "duplicate")
        if answer["differs"]:
            event("redelivery_differs", channel=channel, user_id=said.user_id, message_id=next(iter(said.ids), None))
        self._out_lanes.enqueue([Arrival(said.user_id, UUID(reply_id)) for reply_id in answer["outbox"]])
        return said

    def _rows(self, channel: str, said: Piece) -> list[JsonObject]:
        """Take it apart as a turn's replies are: one row a request."""
        if channel not in self._senders:
            raise Unsendable(Word.NO_ROUTE, "there is no such channel")
        sender = self._senders[channel]
        if sender is None:
            return [{**row_of(said), "failure": Word.NO_ROUTE}]
        return [row_of(piece) for piece in sender.pieces(said)]

    def _spelled(self, channel: str, alias: str) -> str:
        """Spell an alias as those of webhooks are spelled."""
        spell = self._spellings.get(channel)
        spelled = spell(Delivery(senders=(alias,), external_id="")) if spell else None
        return spelled.senders[0] if isinstance(spelled, Delivery) else alias

    def _asked(self, item: JsonObject) -> JsonObject:
        for _ in range(TRIES):
            try:
                row = self._database.row(SAY, (Jsonb(item),), within_s=SAY_S)
            except psycopg.Error as error:
                raise refusal(sqlstate_of(error)) from error
            if row and row.said["outcome"] != "skipped":
                answer: JsonObject = row.said
                return answer
        raise StoreUnavailable("the user is being merged with another")
