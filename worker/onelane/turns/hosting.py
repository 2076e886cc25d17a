"""Run the handler: sync in the slot's own thread, async on one shared event loop."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable
from concurrent.futures import CancelledError, Future
from threading import Event
from typing import Any

from onelane.bot import Handler, Memory, Replies, Session, Turn, User
from onelane.errors import HandlerFailed, StoreUnavailable, describe
from onelane.forks import children_end_here, end_in_children
from onelane.lanes.holding import Holding
from onelane.model import JsonObject, TurnRead


def turn_of(read: TurnRead, memory: Memory, cancelled: Event) -> Turn:
    """Make what a handler gets."""
    return Turn(
        read.messages,
        User(read.user.id, read.user.channel, read.user.sender, read.user.state),
        Session(read.session.id, read.session.started_at, read.session.state),
        memory,
        cancelled,
    )


class Host:
    """Runs one handler for many slots."""

    def __init__(self, handler: Handler, turn_timeout_s: float) -> None:
        self._handler = handler
        self._turn_timeout_s = turn_timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()
        """Guards the loop's start: two slots must not make two."""

    def run(self, turn: Turn, holding: Holding) -> JsonObject:
        """Run the handler and collect the turn's effects; raise HandlerFailed for whatever is its fault."""
        try:
            with children_end_here():
                replies: Any = self._handler(turn)
            if inspect.isawaitable(replies):
                replies = self._await(replies, holding)
            return turn.effects(replies)
        except (HandlerFailed, StoreUnavailable):
            raise
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, SystemExit too
            raise HandlerFailed(describe(error)) from None

    def _await(self, replies: Awaitable[Replies], holding: Holding) -> Replies:
        future: Future[Replies] = asyncio.run_coroutine_threadsafe(awaited(replies), self._running_loop())
        holding.when_cancelled(future.cancel)
        try:
            return future.result(self._turn_timeout_s)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise HandlerFailed(f"the handler did not finish within {self._turn_timeout_s:g} s") from None
        except CancelledError:
            raise HandlerFailed("the turn was cancelled") from None
        finally:
            holding.when_cancelled(None)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                end_in_children(self._loop)
                threading.Thread(target=self._loop.run_forever, name="handlers", daemon=True).start()
            return self._loop


async def awaited(replies: Awaitable[Replies]) -> Replies:
    """Make a coroutine, which a loop wants, of anything that can be awaited."""
    with children_end_here():
        return await replies
