"""Run a bot's function: sync in a thread that its lease has to itself, async on the event loop that all share.

Each turn has a context of its own (`contextvars`), a copy of its shift's. Whatever is as large as a user makes it, a
turn's states and replies, is handled where the handler runs, and not on the loop of our own work.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import Event
from typing import Any

from onelane.bot import AsyncTurn, Session, Turn, User
from onelane.bot.memory import Memory
from onelane.bot.reply import Replies
from onelane.errors import HandlerFailed
from onelane.forks import children_end_here
from onelane.lanes.holding import Holding
from onelane.model import JsonObject, TurnRead
from onelane.turns.answers import answered
from onelane.turns.blame import blamed
from onelane.turns.bots import Act
from onelane.turns.handler_threads import LeaseThread
from onelane.turns.loop import RUNNING, Blockage, HandlerLoop, Visit, awaited

READERS_MAX = 4
"""Threads for the reads of async handlers: about as many as there are connections."""
LOOK_AGAIN_S = 0.1


def turn_of(
    act: Act, read: TurnRead, memory: Memory, cancelled: Event, readers: Executor | None = None
) -> Turn | AsyncTurn:
    """Make what `act` gets: an AsyncTurn if it is an async function."""
    user, session = read.user, read.session
    parts = (
        read.messages,
        User(user.id, user.channel, user.sender, user.state),
        Session(
            session.id,
            session.started_at,
            session.state,
            session.summary,
            is_first=session.is_first,
            previous_summary=session.previous_summary,
        ),
        memory,
        cancelled,
        read.reply_until,
    )
    return AsyncTurn(*parts, readers=readers) if act.is_async else Turn(*parts)


class Host:
    """Runs the bots' functions for many shifts, on whose loop their coroutines are awaited."""

    def __init__(self, turn_timeout_s: float, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is the clock of those who await it."""
        self._turn_timeout_s = turn_timeout_s
        self._now = now
        self._readers = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="reads")
        self._loop: HandlerLoop | None = None
        """Started by the first who needs it, on the loop of the shifts."""

    async def run(self, act: Act, read: TurnRead, memory: Memory, holding: Holding, thread: LeaseThread) -> JsonObject:
        """Run `act` and collect the turn's effects; raise HandlerFailed for whatever is its fault."""
        context, call = copy_context(), partial(self._effects, act, read, memory, holding.cancelled)
        effects = _awaited_effects(call) if act.is_async else await thread.run(partial(context.run, call))
        if not inspect.isawaitable(effects):
            return effects
        return await self._within_time(context.run(self._visit, effects), memory, holding)

    def clock(self) -> float:
        """Return the time by which turns are measured: it stands still while process or event loops do not go on."""
        return self._loop.clock() if self._loop else self._now()

    def beat(self) -> Blockage | None:
        """Ask the handlers' loop for a sign of life; return what keeps it from answering."""
        return self._loop.beat() if self._loop else None

    def _effects(
        self, act: Act, read: TurnRead, memory: Memory, cancelled: Event
    ) -> JsonObject | Awaitable[JsonObject]:
        """Call the function, where it may take its time."""
        try:
            turn = turn_of(act, read, memory, cancelled, self._readers)
            RUNNING.set(turn)
            with children_end_here():
                replies = act(turn)
                return _effects_of(turn, replies) if inspect.isawaitable(replies) else turn.effects(replies)
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, SystemExit too
            raise blamed(error) from None

    def _visit(self, effects: Awaitable[JsonObject]) -> Visit:
        self._loop = self._loop or HandlerLoop(self._now)
        return self._loop.visit(effects)

    async def _within_time(self, visit: Visit, memory: Memory, holding: Holding) -> JsonObject:
        holding.when_cancelled(visit.cancel)
        memory.when_interrupted(visit.interrupt)
        answer, ends = answered(visit.future), self.clock() + self._turn_timeout_s
        try:
            while not answer.done() and (left_s := ends + memory.held_s - self.clock()) > 0:
                await asyncio.wait([answer], timeout=max(left_s, LOOK_AGAIN_S))
            if answer.done():
                effects: JsonObject = answer.result()
                return effects
            outage = memory.outage  # asked before the read is cancelled with its turn
            visit.cancel()
            raise outage or HandlerFailed(f"the handler did not finish within {self._turn_timeout_s:g} s")
        except CancelledError:
            raise HandlerFailed("the turn was cancelled") from None
        finally:
            holding.when_cancelled(None)
            memory.when_interrupted(None)


async def _awaited_effects(call: Callable[[], Any]) -> JsonObject:
    """Call an async handler on the loop on which this is awaited."""
    effects: JsonObject = await call()
    return effects


async def _effects_of(turn: Turn | AsyncTurn, replies: Awaitable[Replies]) -> JsonObject:
    try:
        return turn.effects(await awaited(replies))
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - as above
        raise blamed(error) from None
