"""Runs a bot's functions where the test runs: sync ones in its own thread, async ones on one loop of the process."""

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from functools import cache
from typing import Any

from onelane.errors import HandlerFailed, HandlerWaits
from onelane.lanes.holding import Holding
from onelane.model import JsonObject, TurnRead
from onelane.testing.bot.in_memory.turn_memory import TurnMemory
from onelane.turns.blame import blamed
from onelane.turns.bots import Act
from onelane.turns.event_loop import EventLoop
from onelane.turns.hosting import turn_of


@cache
def _handlers_loop() -> EventLoop:
    """Start the loop: clients that a bot keeps between its turns belong to it."""
    return EventLoop("handlers")


class InlineHost:
    """Runs what Handling hands it, before it returns."""

    def __init__(self, failures: list[str], begins: Callable[[], object]) -> None:
        """`begins` is called as a handler begins."""
        self._failures = failures
        self._begins = begins

    async def run(self, act: Act, read: TurnRead, memory: TurnMemory, holding: Holding, _thread: Any) -> JsonObject:
        """Run `act` and collect the turn's effects; raise HandlerFailed for whatever is its fault."""
        self._begins()
        turn = turn_of(act, read, memory, holding.cancelled)
        try:
            replies = act(turn)
            if inspect.isawaitable(replies):
                replies = _handlers_loop().run(_awaited(replies, memory)).result()
            return turn.effects(replies)
        except CancelledError:
            raise HandlerFailed("the turn was cancelled") from None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a handler may raise anything; pytest's own pass
            failed = blamed(error)
            if not isinstance(failed, HandlerWaits):
                self._failures.append(_told(error))
            raise failed from None


class InlineThread:
    """Stands for a lease's thread."""

    async def run(self, call: Callable[[], Any]) -> Any:
        """Call it."""
        return call()


async def _awaited(replies: Awaitable[Any], memory: TurnMemory) -> Any:
    """Await a handler; one that is to be interrupted ends where it first waits, unless it has shielded itself."""
    handler = asyncio.ensure_future(replies)
    await asyncio.sleep(0)  # it has begun
    memory.interrupt()
    if memory.is_interrupted:
        handler.cancel()
    return await handler


def _told(error: BaseException) -> str:
    """Show where it failed, without our own frames."""
    ours = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, ours and ours.tb_next))
