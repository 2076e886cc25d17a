"""Intake: what a channel's adapter understood becomes a numbered, committed message on its user's lane."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from onelane.config import Settings
from onelane.db import Clock, Database, database_clock
from onelane.errors import BacklogFull, OnelaneError, StoreAway, StoreRefused, StoreUnavailable, reason_of
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
GRAVEST_FIRST: Final = (StoreAway, StoreUnavailable, StoreRefused, BacklogFull)
"""Which of several refusals of one webhook is its answer: that of the server before that of a message or a user."""

Note = Callable[[Accepted], object]


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

    def accept(
        self, channel: str, deliveries: Sequence[Delivery], note: Note = lambda _message: None
    ) -> list[Accepted]:
        """Commit `deliveries` of one channel and put what waits on its lanes; answers in the order given.

        Each stands or fails by itself; once it stands, nothing of it can be lost, and a repetition is a duplicate.
        `note` gets each as soon as it stands. Then the gravest of what went wrong is raised for all: StoreUnavailable
        with Postgres away or a user's row held, StoreRefused for what cannot be stored, BacklogFull when a user has too
        many waiting messages. Whatever Redis answers is no error: the reconciler enqueues what Postgres has.
        """
        if not deliveries:
            return []
        items = self._items(channel, deliveries)
        answers = self._database.ask("accept", items)
        self._take(answers, note)
        self._wait_for_held(items, answers, note)
        problems = [_problem(channel, answer) for answer in answers if answer["outcome"] not in STANDS]
        if problems:
            raise min(problems, key=_gravity)
        return [_accepted(answer) for answer in answers]

    def _items(self, channel: str, deliveries: Sequence[Delivery]) -> list[JsonObject]:
        settings, now = self._settings, self._now()
        extra = {
            "channel": channel,
            "backlog_max": settings.channels[channel].backlog_max or settings.backlog_max,
            **({"now": now.isoformat()} if now else {}),
        }
        return [{**delivery.model_dump(mode="json", exclude_none=True), **extra} for delivery in deliveries]

    def _take(self, answers: Sequence[JsonObject], note: Note) -> None:
        """Count what stands, note it, and put what waits on its lanes."""
        standing = [answer for answer in answers if answer["outcome"] in STANDS]
        accepted = [_accepted(answer) for answer in standing]
        for answer, message in zip(standing, accepted, strict=True):
            DELIVERIES.count(answer["outcome"])
            note(message)
            if answer["has_conflict"]:
                IDENTITY_CONFLICTS.count()
                event("identity_conflict", user_id=answer["user_id"])
        if any(answer["outcome"] == "accepted" for answer in standing):
            self._database.breaker.close()
        self._enqueue([message for message in accepted if message.is_waiting])

    def _wait_for_held(self, items: Sequence[JsonObject], answers: list[JsonObject], note: Note) -> None:
        """Accept what somebody held up, and put its answer in the place of the first.

        In a list nothing waits for another transaction, so that two lists never wait for each other in a circle. What
        was skipped goes alone, in its order: with a message all later ones of its user are skipped.
        """
        waits_until = time.monotonic() + LOCKED_WAIT_MAX_S
        held: set[str] = set()
        for nr, item in enumerate(items):
            whose = _whose(item, answers[nr])
            if answers[nr]["outcome"] == "skipped" and whose not in held:
                answers[nr] = self._waited_for(item, answers[nr], whose, waits_until)
                self._take([answers[nr]], note)
            if answers[nr]["outcome"] not in STANDS:
                held.add(whose)

    def _waited_for(self, item: JsonObject, skipped: JsonObject, whose: str, waits_until: float) -> JsonObject:
        """Accept what somebody holds up; not if the time is over, or if that was in vain for this user a moment ago."""
        now = time.monotonic()
        if now > waits_until or self._locked.get(whose, 0.0) > now:
            return skipped
        try:
            [answer] = self._database.ask("accept", [item], waits=True)
        except StoreUnavailable:
            return skipped
        if answer.get("sqlstate") == LOCK_NOT_AVAILABLE:
            current = {user: until for user, until in self._locked.items() if until > now}
            self._locked = {**current, whose: time.monotonic() + LOCKED_REST_S}
        return answer

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
        except Exception as error:  # noqa: BLE001 - the messages are committed, and so is the answer to the provider
            # A race of two requests makes the pause a little longer or shorter, which is fine.
            self._rest_until = time.monotonic() + REDIS_REST_S
            self._postpone(messages)
            event("enqueue_postponed", messages=len(messages), error=reason_of(error))

    def _postpone(self, messages: Sequence[Accepted]) -> None:
        """Remember what Redis has not got, within a bound; beyond it the reconciler finds it a little later."""
        with self._postponing:
            self._postponed = [*self._postponed, *messages][:POSTPONED_MAX]


def _problem(channel: str, answer: JsonObject) -> OnelaneError:
    """Count and log a message that was not accepted; return what that means for its webhook."""
    outcome = answer["outcome"]
    DELIVERIES.count(outcome)
    event(
        "delivery_not_accepted",
        channel=channel,
        outcome=outcome,
        user_id=answer.get("user_id"),
        sqlstate=answer.get("sqlstate"),
    )
    match outcome:
        case "full":
            return BacklogFull("a user has too many waiting messages")
        case "refused":
            return refusal(answer["sqlstate"])
    return StoreUnavailable("another transaction holds what the delivery needs")


def _gravity(problem: OnelaneError) -> int:
    return next(place for place, kind in enumerate(GRAVEST_FIRST) if isinstance(problem, kind))


def _whose(item: JsonObject, answer: JsonObject) -> str:
    """Name the user of a delivery: by the first identifier, where the user is not known yet."""
    whose: str = answer.get("user_id") or item.get("conversation") or item["senders"][0]
    return whose


def _accepted(answer: JsonObject) -> Accepted:
    return Accepted(
        message_id=answer["message_id"],
        user_id=answer["user_id"],
        seq=answer["seq"],
        duplicate=answer["outcome"] == "duplicate",
        is_waiting=answer["is_waiting"],
    )
