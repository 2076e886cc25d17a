"""Run the handler: sync in the slot's own thread, async on the event loop that all share.

Each turn has a context of its own (`contextvars`), a copy of the slot's.
"""

import inspect
import threading
from collections.abc import Awaitable
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from contextvars import copy_context
from threading import Event
from typing import Any

from onelane.bot import AsyncTurn, Handler, Memory, Replies, Session, Turn, User
from onelane.errors import HandlerFailed, StoreUnavailable
from onelane.forks import children_end_here
from onelane.lanes.holding import Holding
from onelane.model import JsonObject, TurnRead
from onelane.turns.blame import blamed
from onelane.turns.clock import WorkingClock
from onelane.turns.loop import RUNNING, Blockage, HandlerLoop

READERS_MAX = 4
"""Threads for the reads of async handlers: about as many as there are connections."""
LOOK_AGAIN_S = 0.1


def turn_of(
    handler: Handler, read: TurnRead, memory: Memory, cancelled: Event, readers: Executor | None = None
) -> Turn | AsyncTurn:
    """Make what `handler` gets: an AsyncTurn if it is an async function."""
    parts = (
        read.messages,
        User(read.user.id, read.user.channel, read.user.sender, read.user.state),
        Session(read.session.id, read.session.started_at, read.session.state),
        memory,
        cancelled,
    )
    return AsyncTurn(*parts, readers=readers) if _is_async(handler) else Turn(*parts)


class Host:
    """Runs one handler for many slots."""

    def __init__(self, handler: Handler, turn_timeout_s: float) -> None:
        self._handler: Any = handler
        self._turn_timeout_s = turn_timeout_s
        self._clock = WorkingClock()
        self._readers = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="reads")
        self._loop: HandlerLoop | None = None
        self._starting = threading.Lock()
        """Guards the loop's start: two slots must not make two."""

    def run(self, read: TurnRead, memory: Memory, holding: Holding) -> JsonObject:
        """Run the handler and collect the turn's effects; raise HandlerFailed for whatever is its fault."""
        turn = turn_of(self._handler, read, memory, holding.cancelled, self._readers)
        try:
            return turn.effects(copy_context().run(self._replies, turn, memory, holding))
        except (HandlerFailed, StoreUnavailable):
            raise
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, SystemExit too
            raise blamed(error) from None

    def clock(self) -> float:
        """Return the time by which turns are measured: it stands still while process or event loop do not go on."""
        return self._loop.clock() if self._loop else self._clock.now()

    def beat(self) -> Blockage | None:
        """Tick, and ask the event loop for a sign of life; return what keeps it from answering."""
        self._clock.tick()
        return self._loop.beat() if self._loop else None

    def _replies(self, turn: Turn | AsyncTurn, memory: Memory, holding: Holding) -> Replies:
        RUNNING.set(turn)
        with children_end_here():
            replies = self._handler(turn)
        return self._await(replies, memory, holding) if inspect.isawaitable(replies) else replies

    def _await(self, replies: Awaitable[Replies], memory: Memory, holding: Holding) -> Replies:
        visit = self._running_loop().visit(replies)
        holding.when_cancelled(visit.cancel)
        ends = self.clock() + self._turn_timeout_s
        try:
            while (left_s := ends - self.clock()) > 0:
                try:
                    return visit.future.result(max(left_s, LOOK_AGAIN_S))
                except TimeoutError:
                    if visit.future.done():  # it was the handler's own, or it has ended this moment
                        return visit.future.result()
            outage = memory.outage  # asked before the read is cancelled with its turn
            visit.cancel()
            raise outage or HandlerFailed(f"the handler did not finish within {self._turn_timeout_s:g} s")
        except CancelledError:
            raise HandlerFailed("the turn was cancelled") from None
        finally:
            holding.when_cancelled(None)

    def _running_loop(self) -> HandlerLoop:
        with self._starting:
            self._loop = self._loop or HandlerLoop(self._clock.now)
            return self._loop


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)
