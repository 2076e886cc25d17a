"""Intake: what a channel's adapter understood becomes a numbered, committed message on its user's lane."""

import threading
import time
from collections.abc import Sequence
from typing import Final

from onelane.config import Settings
from onelane.db import Clock, Database, database_clock
from onelane.errors import BacklogFull, LanesUnavailable, StoreUnavailable
from onelane.faults import LOCK_NOT_AVAILABLE, refusal
from onelane.lanes.lanes import Lanes
from onelane.model import Accepted, Delivery, JsonObject
from onelane.telemetry.log import event
from onelane.telemetry.numbers import DELIVERIES, IDENTITY_CONFLICTS

REDIS_REST_S: Final = 1.0
POSTPONED_MAX: Final = 10_000
LOCKED_REST_S: Final = 2.0
"""After a user's row could not be locked, nobody waits for it so long: few threads would be left for others."""
LOCKED_WAIT_MAX_S: Final = 5.0
"""How long one list waits for all users whose rows somebody holds; who is left is not accepted, and delivered again."""
STANDS: Final = frozenset({"accepted", "duplicate"})


class Intake:
    """Accepts deliveries: Postgres first, then Redis."""

    def __init__(self, settings: Settings, database: Database, lanes: Lanes, now: Clock = database_clock) -> None:
        self._settings = settings
        self._database = database
        self._lanes = lanes
        self._now = now
        self._rest_until = 0.0
        self._locked: dict[str, float] = {}
        """Users whose rows somebody holds, and until when nobody waits for them. Replaced, never changed."""
        self._postponed: list[Accepted] = []
        self._postponing = threading.Lock()
        """Guards the list: requests add to it, one thread takes it."""

    def accept(self, channel: str, deliveries: Sequence[Delivery]) -> list[Accepted]:
        """Commit `deliveries` of one channel and put what waits on its lanes; answers in the order given.

        Each stands or fails by itself; once it stands, nothing of it can be lost, and a repetition is a duplicate.
        Raises StoreUnavailable with Postgres away, and BacklogFull when a user of them has too many waiting messages:
        what was accepted beside that stays. Redis away is no error: the reconciler enqueues what Postgres has.
        """
        if not deliveries:
            return []
        answers = self._store(channel, deliveries)
        accepted = [_accepted(answer) for answer in answers if answer["outcome"] in STANDS]
        for message in accepted:
            DELIVERIES.count("duplicate" if message.duplicate else "accepted")
        self._enqueue([message for message in accepted if message.is_waiting])
        for answer in answers:
            self._raise_for(answer)
        return accepted

    def _store(self, channel: str, deliveries: Sequence[Delivery]) -> list[JsonObject]:
        settings, now = self._settings, self._now()
        extra = {
            "channel": channel,
            "backlog_max": settings.channels[channel].backlog_max or settings.backlog_max,
            **({"now": now.isoformat()} if now else {}),
        }
        items = [{**delivery.model_dump(mode="json", exclude_none=True), **extra} for delivery in deliveries]
        # In a list nothing waits for another transaction, so that two lists never wait for each other in a circle. What
        # was skipped goes alone, in its order: with a message all later ones of its user are skipped.
        waits_until = time.monotonic() + LOCKED_WAIT_MAX_S
        answers = self._database.ask("accept", items)
        held: set[str] = set()
        for nr, answer in enumerate(answers):
            user_id = answer.get("user_id", "")
            if answer["outcome"] == "skipped" and user_id not in held:
                answers[nr] = self._waited_for(items[nr], answer, waits_until)
            if answers[nr]["outcome"] not in STANDS:
                held.add(user_id)
        if any(answer["outcome"] == "accepted" for answer in answers):
            self._database.breaker.close()
        return answers

    def _waited_for(self, item: JsonObject, skipped: JsonObject, waits_until: float) -> JsonObject:
        """Accept what somebody holds up; not if the time is over, or if that was in vain for this user a moment ago."""
        user_id, now = skipped.get("user_id", ""), time.monotonic()
        if now > waits_until or self._locked.get(user_id, 0.0) > now:
            return skipped
        try:
            [answer] = self._database.ask("accept", [item], waits=True)
        except StoreUnavailable:
            return skipped
        if answer.get("sqlstate") == LOCK_NOT_AVAILABLE:
            current = {user: until for user, until in self._locked.items() if until > now}
            self._locked = {**current, user_id: time.monotonic() + LOCKED_REST_S}
        return answer

    def _raise_for(self, answer: JsonObject) -> None:
        """Raise what an item's answer means for the whole delivery; note a conflict of identifiers."""
        if answer.get("has_conflict"):
            IDENTITY_CONFLICTS.count()
            event("identity_conflict", user_id=answer["user_id"])
        match answer["outcome"]:
            case "full":
                raise BacklogFull("a user has too many waiting messages")
            case "skipped":
                raise StoreUnavailable("another transaction holds what the delivery needs")
            case "refused":
                raise refusal(answer["sqlstate"])

    def enqueue_postponed(self) -> None:
        """Enqueue what could not be while Redis was away: called again and again, and mostly nothing to do."""
        with self._postponing:
            postponed, self._postponed = self._postponed, []
        if postponed:
            self._enqueue(postponed)

    def _enqueue(self, messages: Sequence[Accepted]) -> None:
        """Update Redis; while it is away, do not make every webhook wait to find out."""
        if not messages:
            return
        if time.monotonic() < self._rest_until:
            self._postpone(messages)
            return
        try:
            self._lanes.enqueue_many([(message.user_id, message.message_id) for message in messages])
        except LanesUnavailable:
            # A race of two requests makes the pause a little longer or shorter, which is fine.
            self._rest_until = time.monotonic() + REDIS_REST_S
            self._postpone(messages)
            event("enqueue_postponed", messages=len(messages))

    def _postpone(self, messages: Sequence[Accepted]) -> None:
        """Remember what Redis has not got, within a bound; beyond it the reconciler finds it a little later."""
        with self._postponing:
            self._postponed = [*self._postponed, *messages][:POSTPONED_MAX]


def _accepted(answer: JsonObject) -> Accepted:
    return Accepted(
        message_id=answer["message_id"],
        user_id=answer["user_id"],
        seq=answer["seq"],
        duplicate=answer["outcome"] == "duplicate",
        is_waiting=answer["is_waiting"],
    )
