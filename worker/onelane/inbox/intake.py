"""Intake: what a channel's adapter understood becomes a numbered, committed line, and what waits is on its lane."""

import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Final

from onelane.config import Channel, Settings
from onelane.deliveries import Accepted, Delivery
from onelane.end_words import is_end
from onelane.errors import BacklogFull, StoreRefused, StoreUnavailable
from onelane.gathering import Gatherer
from onelane.inbox.items import Line, item_or_none, kind_of, whose
from onelane.inbox.patience import Answer, Patience
from onelane.inbox.refusals import Outcome, gravest
from onelane.lanes.arrivals import Arrival, arrival
from onelane.lanes.enqueueing import Enqueueing
from onelane.model import JsonObject
from onelane.postgres.breaker import Breaker
from onelane.postgres.db import Clock, database_clock
from onelane.postgres.faults import NOT_STORABLE, refusal
from onelane.rejecting import BusyReplies
from onelane.telemetry import tracing
from onelane.telemetry.log import event
from onelane.telemetry.numbers import ACCEPTED, DELIVERIES, DIFFERING, IDENTITY_CONFLICTS

ANSWER_MAX_S: Final = 2.0
"""How long a webhook waits for its lines. What is committed later is a duplicate when it comes again."""
KEPT_FACTOR: Final = 2
"""How much longer a user's backlog may be where a provider delivers nothing again that was refused."""
STANDS: Final = frozenset({"accepted", "duplicate"})
HELD: Final[JsonObject] = {"outcome": "skipped"}
UNWRITABLE: Final[JsonObject] = {"outcome": "refused", "sqlstate": NOT_STORABLE}
"""Of what cannot even be asked: as of what Postgres refuses, its webhook is kept in quarantine."""

Note = Callable[[Accepted], object]
Written = tuple[Line, JsonObject]
"""A line, and its item."""


class Intake:
    """Accepts deliveries: Postgres first, then Redis."""

    def __init__(
        self,
        settings: Settings,
        gatherer: Gatherer,
        breaker: Breaker,
        lanes: Enqueueing,
        now: Clock = database_clock,
        busy: BusyReplies | None = None,
    ) -> None:
        """`gatherer` asks `accept`, for all requests of the process."""
        self._settings = settings
        self._gatherer = gatherer
        self._breaker = breaker
        self._lanes = lanes
        self._now = now
        self._busy = busy
        self._patience = Patience(gatherer)

    def accept(
        self, channel: str, lines: Sequence[Line], note: Note = lambda _message: None, *, redelivers: bool = True
    ) -> list[Accepted]:
        """Commit `lines` of one channel as `outcomes` does, and raise the gravest of what went wrong."""
        outcomes = self.outcomes(channel, lines, note, redelivers=redelivers)
        if problem := gravest(outcomes):
            raise problem
        return [outcome for outcome in outcomes if isinstance(outcome, Accepted)]

    def outcomes(
        self, channel: str, lines: Sequence[Line], note: Note, *, redelivers: bool = True, ends: float | None = None
    ) -> list[Outcome]:
        """Commit `lines` of one channel and put what waits on its lanes; what became of each, in the order given.

        With `redelivers` False the provider does not deliver again what is refused: a full backlog takes some more.
        `ends` is until when to wait for all of them, by the monotonic clock.
        Each stands or fails by itself; once it stands, nothing of it can be lost, and a repetition is a duplicate.
        `note` gets each as soon as it stands. What does not is an error: StoreUnavailable with Postgres away or a
        user's row held, StoreRefused for what cannot be stored, BacklogFull when a user has too many waiting messages.
        Whatever Redis answers is no error: what Postgres has is enqueued later.
        """
        ends = ends or time.monotonic() + ANSWER_MAX_S
        written = [(line, item_or_none(line)) for line in lines]
        asked = [(line, item) for line, item in written if item is not None]
        outcomes = iter(self._asked(channel, asked, note, ends, redelivers=redelivers))
        return [_not_accepted(channel, UNWRITABLE) if item is None else next(outcomes) for _, item in written]

    def _asked(
        self, channel: str, written: Sequence[Written], note: Note, ends: float, *, redelivers: bool
    ) -> list[Outcome]:
        """Ask for all of them. What is refused with others goes alone."""
        items = self._items(channel, written, redelivers=redelivers)
        users = (f"{channel}:{user}" for user in whose(items))
        with tracing.accepting(channel, items) as sends:
            futures = self._gatherer.submit_all(list(zip(items, users, strict=True)))
            self._take_as_they_come(dict(zip(futures, items, strict=True)), note, ends)
            outcomes = [_problem(channel, future) or _accepted(future.result()) for future in futures]
            sends.note(outcomes)
        if len(written) > 1:
            for nr in [nr for nr, future in enumerate(futures) if _failed_together(future)]:
                [outcomes[nr]] = self._asked(channel, [written[nr]], note, ends, redelivers=redelivers)
        return outcomes

    def _take_as_they_come(self, asked: Mapping[Answer, JsonObject], note: Note, ends: float) -> None:
        """Take what stands as soon as it does; do not wait for long for those whom others' locks hold up."""
        answered: SimpleQueue[Answer] = SimpleQueue()
        for future in asked:
            future.add_done_callback(answered.put)
        waiting = set(asked)
        while waiting:
            done = self._patience.wait(answered, ends)
            if not done:
                self._breaker.suspect()
                done = [future for future in waiting if not future.cancel()]
                waiting.clear()
            waiting.difference_update(done)
            self._take([(asked[future], future.result()) for future in done if _stands(future)], note, ends)

    def _items(self, channel: str, written: Sequence[Written], *, redelivers: bool) -> list[JsonObject]:
        settings, now = self._settings, self._now()
        configured = settings.channels[channel]
        backlog_max = configured.backlog_max or settings.backlog_max
        extra = {
            "channel": channel,
            "backlog_max": backlog_max if redelivers else KEPT_FACTOR * backlog_max,
            **({"now": now.isoformat()} if now else {}),
            **(self._busy.of(channel) if self._busy else {}),
        }
        own = {"on_echo": configured.on_echo}
        return [{**own, **item, **_closing(line, configured), **extra} for line, item in written]

    def _take(self, standing: Sequence[tuple[JsonObject, JsonObject]], note: Note, ends: float) -> None:
        """Put what waits on its lanes, then count what stands and note it; of each its item and its answer."""
        self._lanes.enqueue([self._arrival(item, answer) for item, answer in standing if answer["is_waiting"]], ends)
        if self._busy:
            self._busy.send([answer for _, answer in standing], ends)
        for item, answer in standing:
            _count(item, answer)
            note(_accepted(answer))
        if any(answer["outcome"] == "accepted" for _, answer in standing):
            self._breaker.close()

    def _arrival(self, item: JsonObject, answer: JsonObject) -> Arrival:
        return arrival(self._settings.channels[item["channel"]], item, answer)


def _closing(line: Line, channel: Channel) -> JsonObject:
    """Say that a line closes its batch where it ends the session; its hash does not know which words do."""
    return {"closes": True} if isinstance(line, Delivery) and is_end(line.kind, line.text, channel) else {}


def _count(item: JsonObject, answer: JsonObject) -> None:
    """Count what stands, and say what an operator should know of it."""
    DELIVERIES.count(answer["outcome"])
    if answer["outcome"] == "accepted":
        ACCEPTED.count(kind_of(item))
        if answer["has_conflict"]:
            IDENTITY_CONFLICTS.count()
            event("identity_conflict", user_id=answer["user_id"])
    if answer.get("differs"):
        DIFFERING.count()
        event("redelivery_differs", channel=item["channel"], user_id=answer["user_id"], message_id=answer["message_id"])


def _stands(future: Answer) -> bool:
    return not future.exception() and future.result()["outcome"] in STANDS


def _failed_together(future: Answer) -> bool:
    """Whether a line was refused with its whole call: what Postgres cannot read at all may be a neighbour."""
    return not future.cancelled() and isinstance(future.exception(), StoreRefused)


def _problem(channel: str, future: Answer) -> BaseException | None:
    """Count and log a message that was not accepted; return what that means for its webhook."""
    if not future.cancelled():
        if (error := future.exception()) or _stands(future):
            return error
        return _not_accepted(channel, future.result())
    return _not_accepted(channel, HELD)


def _not_accepted(channel: str, answer: JsonObject) -> BaseException:
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


def _accepted(answer: JsonObject) -> Accepted:
    return Accepted(
        message_id=answer["message_id"],
        user_id=answer["user_id"],
        seq=answer["seq"],
        duplicate=answer["outcome"] == "duplicate",
        is_waiting=answer["is_waiting"],
    )
