"""Records what a worker or a web of the service does, from outside: the product's own code knows nothing of it.

`install("worker")` comes with the import of `bot.py`, `install("web")` with that of `web.py`. Both note stalls; a
worker also notes which of the workers it is, what it asked Postgres and Redis about its lanes of both kinds, and what
they answered, and looks more often for what is kept no longer. A call that ends with an error is noted only where that
leaves something open: as a commit, failure or settle with the outcome `unknown`.

CHAOS_MUTANT names a bug to plant first (`tests/chaos/mutants/`), so that what it does is recorded too.
"""

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from functools import partial, wraps
from importlib import import_module
from inspect import iscoroutine
from typing import Any

from onelane import keys
from onelane.lanes.lanes import Lanes
from onelane.model import Lease, TurnRead
from onelane.outbox.records import SendRecords
from onelane.outbox.reply import Begun as BegunSend
from onelane.outbox.reply import Fate, Waiting
from onelane.outbox.reply import Settled as SettledSend
from onelane.outcomes import Begun, Settled
from onelane.processes import duties
from onelane.turns.records import Records
from tests.chaos.history import Event, Recorder
from tests.chaos.service.orders import DYNO
from tests.chaos.stalls import watch_stalls

MUTANT = "CHAOS_MUTANT"
UNKNOWN = "unknown"
EVERY_ROUND = 1
"""How often sessions that are over are ended, and those that are kept no longer are forgotten: a short run sees it."""
COMMITS = frozenset({"committed", "already", "fenced", "stale", "superseded"})

Notes = Callable[..., list[tuple[str, Event]]]
"""Turns a call into (kind, fields) from its arguments and its answer; the answer is None if it raised."""


def install(role: str) -> None:
    """Record from now on; once a process."""
    if name := os.environ.get(MUTANT):
        import_module("tests.chaos.mutants").plant(name)
    recorder = Recorder(role)
    watch_stalls(recorder)
    if role == "worker":
        recorder.note("boot", dyno=os.environ.get(DYNO))
        duties.SWEEP_ROUNDS = duties.FORGET_ROUNDS = EVERY_ROUND
        _record_lanes(recorder)
        record_turns(recorder)
        record_sends(recorder)


def _record_lanes(recorder: Recorder) -> None:
    _wrap(recorder, Lanes, "lease", _leased)
    _wrap(recorder, Lanes, "finish_soon", _finished)
    _wrap(recorder, Lanes, "park_soon", _parked)


def record_turns(recorder: Recorder) -> None:
    """Note what this process asks about turns, and what it is answered."""
    asked_at: dict[str, float] = {}
    _keep_time(asked_at, Records, "begin_ahead")
    _wrap(recorder, Records, "begin", partial(_begun_since, asked_at))
    _wrap(recorder, Records, "commit", _committed)
    _wrap(recorder, Records, "fail", _failed)


def record_sends(recorder: Recorder) -> None:
    """Note the same about replies: each mark, and what became of each request."""
    _wrap(recorder, SendRecords, "begin", _marked)
    _wrap(recorder, SendRecords, "settle", _settled_send)


def _keep_time(asked_at: dict[str, float], owner: type, method: str) -> None:
    """Keep, by token, when something was asked for leases whose answer is fetched later, maybe much later."""
    original = getattr(owner, method)

    @wraps(original)
    def timed(self: object, leases: Sequence[Lease]) -> Any:
        asked_at.update(dict.fromkeys((lease.token for lease in leases), time.monotonic()))
        return original(self, leases)

    setattr(owner, method, timed)


def _wrap(recorder: Recorder, owner: type, method: str, notes: Notes) -> None:
    """Note each call of a method as it ends: it returns an answer, a future of one, or a coroutine."""
    original = getattr(owner, method)

    @wraps(original)
    def recorded(self: object, *args: Any, **kwargs: Any) -> Any:
        since = time.monotonic()
        prefix = "out_" if getattr(self, "kind", keys.IN) == keys.OUT else ""

        def note(answer: Any = None) -> Any:
            for kind, fields in notes(answer, *args, **kwargs):
                recorder.note(prefix + kind, **{"since": since, **fields})
            return answer

        async def noted(asked: Awaitable[Any]) -> Any:
            try:
                answer = await asked
            except BaseException:
                note()
                raise
            return note(answer)

        try:
            answer = original(self, *args, **kwargs)
        except BaseException:
            note()
            raise
        if isinstance(answer, Future):
            answer.add_done_callback(lambda done: note(None if done.exception() else done.result()))
            return answer
        return noted(answer) if iscoroutine(answer) else note(answer)

    setattr(owner, method, recorded)


def _leased(leased: Any, *_: Any, **__: Any) -> list[tuple[str, Event]]:
    return [
        ("lease", lease.model_dump(include={"user_id", "token", "fence", "taken_over"}))
        for lease in (leased.leases if leased is not None else ())
    ]


def _finished(released: Any, lease: Lease, *_: Any, **__: Any) -> list[tuple[str, Event]]:
    if released is None:
        return []
    return [("finish", {"user_id": lease.user_id, "token": lease.token, "released": released})]


def _parked(is_parked: bool | None, lease: Lease, delay_s: float, *_: Any, **__: Any) -> list[tuple[str, Event]]:
    if is_parked is None:
        return []
    return [("park", {"user_id": lease.user_id, "token": lease.token, "delay_s": delay_s, "is_parked": is_parked})]


def _begun_since(
    asked_at: dict[str, float], begun: Begun | None, lease: Lease, *_: Any, **__: Any
) -> list[tuple[str, Event]]:
    """Record a begin, and when it was asked for if that was ahead: only a lease's first call can have been."""
    since = asked_at.pop(lease.token, None)
    when: Event = {} if since is None else {"since": since}
    return [(kind, {**fields, **when}) for kind, fields in _begun(begun, lease)]


def _begun(begun: Begun | None, lease: Lease, *_: Any, **__: Any) -> list[tuple[str, Event]]:
    if begun is None:
        return []
    turn = begun.turn
    read = {
        "message_id": turn and turn.first.id,
        "seq": turn and turn.first.seq,
        "seqs": turn and [message.seq for message in turn.messages],
        "superseded": turn and turn.superseded,
        "session_id": turn and turn.session.id,
        "session_status": turn and turn.session.status,
        "deaths": turn and turn.first.deaths,
    }
    return [("begin", {**_lane(lease), "outcome": begun.outcome, **read})]


def _committed(settled: Settled | None, lease: Lease, turn: TurnRead, *_: Any, **__: Any) -> list[tuple[str, Event]]:
    """Record a commit, and the begin of the next turn if the same call did both."""
    if settled is not None and settled.outcome not in COMMITS:
        return []  # its effects could not be stored: noted as a failure already
    next_turn = None if settled is None else settled.next
    return [("commit", _settled(settled, lease, turn)), *_begun(next_turn, lease)]


def _failed(settled: Settled | None, lease: Lease, turn: TurnRead, *_: Any, **__: Any) -> list[tuple[str, Event]]:
    return [("fail", _settled(settled, lease, turn))]


def _marked(begun: BegunSend | None, lease: Lease, *_: Any, **__: Any) -> list[tuple[str, Event]]:
    """Record what was found to be next: a reply that is marked now, or of which nobody knows, or why there is none."""
    if begun is None:
        return []
    reply = begun.reply
    read = {"reply_id": reply and reply.id, "attempt": reply and reply.attempt, "wait_ms": begun.wait_ms}
    return [("out_begin", {**_lane(lease), "outcome": begun.outcome, **read})]


def _settled_send(
    settled: SettledSend | None, lease: Lease, reply: Waiting, fate: Fate, **_: Any
) -> list[tuple[str, Event]]:
    """Record what became of a request, and the next mark if the same call made one."""
    outcome, following = (UNKNOWN, None) if settled is None else (settled.outcome, settled.next)
    this = {"reply_id": reply.id, "attempt": reply.attempt, "deed": fate.deed, "outcome": outcome}
    return [("out_settle", {**_lane(lease), **this}), *_marked(following, lease)]


def _settled(settled: Settled | None, lease: Lease, turn: TurnRead) -> Event:
    outcome = UNKNOWN if settled is None else settled.outcome
    return {**_lane(lease), "message_id": turn.first.id, "session_id": turn.session.id, "outcome": outcome}


def _lane(lease: Lease) -> Event:
    return {"user_id": lease.user_id, "fence": lease.fence}
