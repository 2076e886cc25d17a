"""The planted bugs that are Python."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from copy import copy
from dataclasses import replace
from functools import partial
from hashlib import sha1
from inspect import Parameter, signature
from math import inf
from threading import Timer
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from onelane import forks, keys
from onelane.bootstrap import services
from onelane.channels.sending import Outgoing
from onelane.channels.verdicts import Word
from onelane.deliveries import Accepted
from onelane.errors import HandlerFailed, StoreUnavailable, describe
from onelane.gathering import Gatherer
from onelane.inbox.intake import Intake
from onelane.inbox.items import Line
from onelane.inbox.patience import Patience
from onelane.inbox.refusals import Outcome
from onelane.lanes import keeper
from onelane.lanes.enqueueing import Enqueueing
from onelane.lanes.lanes import Lanes
from onelane.lanes.scripts import Scripts, connect
from onelane.model import JsonObject, Lease, TurnRead
from onelane.outbox.records import SendRecords
from onelane.outbox.reply import Deed, Fate, Waiting
from onelane.processes import dispatcher
from onelane.processes.reconciler import Reconciler
from onelane.processes.retention import Retention
from onelane.turns import hosting, loop
from onelane.turns.hosting import Host
from onelane.turns.loop import HandlerLoop
from onelane.turns.memory import TurnMemory
from onelane.turns.records import Records
from onelane.turns.shift import Shift

RETRIES = 10
"""What redis-py does by default."""
EARLY_S = 0.4
"""How long before its commit the answer goes out."""
IDLE_POLL_S = 2.5
"""An idle worker's own look at the lanes, slowed down; below what a client waits for Redis."""
WAKE_S = 0.02
LATE_S = 0.5
SETTLES_LATE_S = 1.5
"""Long enough that a frozen holder wakes up while its successor has not written yet."""
SEEN_S = 3_600
MUTE_CHANNEL = "telegram"
UNHEARD_EACH = 2
ALL_ACCEPTED = TypeAdapter(list[Accepted])


def plant(owner: object, name: str, bug: object) -> None:
    """Put a bug in the place of what is right."""
    must_fit(owner, name, bug)
    setattr(owner, name, bug)


def must_fit(owner: object, name: str, bug: object) -> None:
    """Raise unless what is right is there, and whoever calls it can call the bug: one that only raises is another."""
    right = getattr(owner, name)
    if callable(right) and callable(bug):
        takes = signature(right).parameters.values()
        named = [one.name for one in takes if one.kind is Parameter.KEYWORD_ONLY]
        placed = [one for one in takes if one.kind in {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}]
        signature(bug).bind(*placed, **dict.fromkeys(named))


def reconciler_off() -> None:
    """Let Redis keep what it has lost."""
    plant(Reconciler, "reconcile", lambda _self: 0)


def retention_off() -> None:
    """Keep everything for ever."""
    plant(Retention, "forget", lambda _self: 0)


def retries_on() -> None:
    """Let the client repeat whatever had no answer."""

    def connect_with_retries(url: str, **access: Any) -> Any:
        client = connect(url, **access)
        client.connection_pool.connection_kwargs["retry"] = Retry(NoBackoff(), RETRIES)
        return client

    plant(services, "connect", connect_with_retries)


def answer_before_commit() -> None:
    """Answer as soon as the rows are written, and commit them a little later."""

    outcomes = Intake.outcomes

    def early_outcomes(intake: Intake, *args: Any, **kwargs: Any) -> list[Outcome]:
        early = copy(intake)
        gatherer = Gatherer(partial(_ask_early, intake))
        plant(early, "_gatherer", gatherer)
        plant(early, "_patience", Patience(gatherer))
        try:
            return outcomes(early, *args, **kwargs)
        finally:
            gatherer.close()

    plant(Intake, "outcomes", early_outcomes)


def _ask_early(intake: Intake, items: Sequence[JsonObject], waits: bool) -> list[JsonObject]:
    """Ask what intake asks, and commit after the answer."""
    connection = psycopg.connect(intake._settings.database_url)
    rows = connection.execute("SELECT accept(%s, %s)", (Jsonb(list(items)), waits)).fetchall()
    answers: list[JsonObject] = rows[0][0]

    def commit() -> None:
        with connection:
            connection.commit()
        pairs = zip(items, answers, strict=True)
        intake._lanes.enqueue([intake._arrival(item, answer) for item, answer in pairs if answer.get("is_waiting")])

    Timer(EARLY_S, commit).start()
    return [dict(answer, is_waiting=False) for answer in answers]  # enqueued when it stands


def dedup_in_redis() -> None:
    """Let Redis alone remember what was delivered."""
    store = Intake.outcomes

    def outcomes(intake: Intake, channel: str, lines: Sequence[Line], *args: Any, **kwargs: Any) -> list[Outcome]:
        client, seen = intake._lanes._lanes.client, f"seen:{channel}:{[line.external_id for line in lines]}"
        with suppress(RedisError):
            if known := client.get(seen):
                return [one.model_copy(update={"duplicate": True}) for one in ALL_ACCEPTED.validate_json(known)]
        stored = store(intake, channel, lines, *args, **kwargs)
        accepted = [one for one in stored if isinstance(one, Accepted)]
        if len(accepted) == len(lines):
            with suppress(RedisError):
                client.set(seen, ALL_ACCEPTED.dump_json(accepted), ex=SEEN_S)
        return stored

    plant(Intake, "outcomes", outcomes)


def settle_late(*channels: str) -> None:
    """Leave time between the last look at the lease and the turn's commit: the process may freeze meanwhile.

    On these channels alone, or on all.
    """
    settle = Shift._settle

    async def settle_later(shift: Shift, turn: TurnRead, *args: Any) -> Any:
        if not channels or turn.user.channel in channels:
            await asyncio.sleep(SETTLES_LATE_S)
        return await settle(shift, turn, *args)

    plant(Shift, "_settle", settle_later)


def finish_late() -> None:
    """Leave time between a turn's commit and what Redis is told of it: an operator may end the session meanwhile."""
    finish, late = Lanes.finish_soon, ThreadPoolExecutor()

    def finish_later(lanes: Lanes, *args: Any, **kwargs: Any) -> Any:
        time.sleep(LATE_S)
        return finish(lanes, *args, **kwargs).result()

    plant(Lanes, "finish_soon", lambda *args, **kwargs: late.submit(finish_later, *args, **kwargs))


def children_go_on() -> None:
    """Let the child of a handler that forks leave the handler, with all that it has inherited."""
    plant(forks, "guard", lambda: None)
    for module in (hosting, loop):
        plant(module, "children_end_here", nullcontext)


def wake_before_push() -> None:
    """Tell a worker first, then put the message on its lane; and let nobody look unasked soon."""
    plant(dispatcher, "IDLE_WAIT_MAX_S", IDLE_POLL_S)
    enqueue = Lanes.enqueue_many

    def enqueue_many(lanes: Lanes, messages: Sequence[Any]) -> None:
        lanes.pass_wake_on()
        time.sleep(WAKE_S)
        enqueue(lanes, messages)

    plant(Lanes, "enqueue_many", enqueue_many)


def new_key_each_time() -> None:
    """Send again under a key that the provider has never seen."""
    outgoing = Waiting.outgoing

    def outgoing_anew(waiting: Waiting, callback_url: str | None) -> Outgoing:
        out = outgoing(waiting, callback_url)
        return replace(out, key=uuid4()) if waiting.attempt > 1 else out

    plant(Waiting, "outgoing", outgoing_anew)


def sends_settled_late() -> None:
    """Leave time between a provider's answer and its note of it: the process may die meanwhile."""
    settle = SendRecords.settle

    async def settle_later(records: SendRecords, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(SETTLES_LATE_S)
        return await settle(records, *args, **kwargs)

    plant(SendRecords, "settle", settle_later)


def answers_overheard() -> None:
    """Give up some replies of channels whose provider cannot be asked, although it has answered."""
    settle = SendRecords.settle

    async def settle_deaf(records: SendRecords, lease: Lease, reply: Waiting, fate: Fate, **kwargs: Any) -> Any:
        is_unheard = reply.channel == MUTE_CHANNEL and fate.deed is Deed.ACCEPTED and reply.seq % UNHEARD_EACH == 1
        heard = Fate(Deed.GIVE_UP, Word.UNCLEAR) if is_unheard else fate
        return await settle(records, lease, reply, heard, **kwargs)

    plant(SendRecords, "settle", settle_deaf)


def superseded_by_signal() -> None:
    """Let a turn be thrown away only where Redis has a job beside those of its batch."""
    ask = Records._interruptible

    def ask_redis_too(records: Records, turn: TurnRead, effects: JsonObject) -> JsonObject:
        asked = ask(records, turn, effects)
        is_cancelled = bool(asked) and asked["interrupt"]["is_cancelled"]
        return asked if is_cancelled or _jobs_of(records, turn) > len(turn.messages) else {}

    plant(Records, "_interruptible", ask_redis_too)


def _jobs_of(records: Records, turn: TurnRead) -> int:
    with suppress(RedisError), Redis.from_url(records._settings.redis_url, socket_timeout=1) as client:
        return client.llen(keys.queue(turn.user.id))
    return 0


def one_lock() -> None:
    """Let the sending of a user's replies and their turns share a lock."""
    read = Scripts.__init__

    def read_with_one_lock(scripts: Scripts, *args: Any, **kwargs: Any) -> None:
        read(scripts, *args, **kwargs)
        for name, text in scripts._texts.items():
            scripts._texts[name] = one = text.replace("'lock:' .. KIND", "'lock:in'")
            scripts._digests[name] = sha1(one.encode(), usedforsecurity=False).hexdigest()

    plant(Scripts, "__init__", read_with_one_lock)


def loop_late() -> None:
    """Let all turns of a loop pay for the time in which one of them blocks it."""
    plant(HandlerLoop, "clock", lambda _loop: time.monotonic())


def helper_unwatched() -> None:
    """Count no beat that the renewing helper leaves unanswered."""
    plant(keeper, "UNANSWERED_MAX", inf)


def outage_charged() -> None:
    """Take an outage that a handler sees for the handler's failure."""
    run = Host.run

    async def run_charged(host: Host, *args: Any) -> JsonObject:
        try:
            return await run(host, *args)
        except StoreUnavailable as error:
            raise HandlerFailed(describe(error)) from None

    plant(Host, "run", run_charged)
    plant(TurnMemory, "outage", None)


def refusals_answered() -> None:
    """Let the provider have what Redis answers when a message is to be put on its lane."""

    def goes(enqueueing: Enqueueing, messages: Sequence[Any], _ends: float) -> bool:
        enqueueing._lanes.enqueue_many(messages)
        return True

    plant(Enqueueing, "_goes", goes)


def failures_asked_twice() -> None:
    """Ask for every failure twice, as after an answer that was lost."""
    fail = Records.fail

    async def fail_again(records: Records, *args: Any, **kwargs: Any) -> Any:
        await fail(records, *args, **kwargs)
        return await fail(records, *args, **kwargs)

    plant(Records, "fail", fail_again)
