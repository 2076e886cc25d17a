"""Run the handler: sync in the slot's own thread, async on one shared event loop."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable
from concurrent.futures import CancelledError, Future
from typing import Any

from worker.failure import HandlerFailed, describe
from worker.handlers import Handler, Said, Turn
from worker.lock import Holding
from worker.model import JsonObject


class Host:
    """Runs one handler for many slots."""

    def __init__(self, handler: Handler, turn_timeout_s: float) -> None:
        self._handler = handler
        self._turn_timeout_s = turn_timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    def run(self, turn: Turn, holding: Holding) -> JsonObject:
        """Run the handler and collect the turn's effects; raise HandlerFailed for whatever is its fault."""
        try:
            said: Any = self._handler(turn)
            if inspect.isawaitable(said):
                said = self._await(said, holding)
            return turn.effects(said)
        except HandlerFailed:
            raise
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, SystemExit too
            raise HandlerFailed(describe(error)) from None

    def close(self) -> None:
        """Stop the event loop, if any handler needed it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _await(self, said: Awaitable[Said], holding: Holding) -> Said:
        future: Future[Said] = asyncio.run_coroutine_threadsafe(_to_end(said), self._running_loop())
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
                threading.Thread(target=self._loop.run_forever, name="handlers", daemon=True).start()
            return self._loop


async def _to_end(said: Awaitable[Said]) -> Said:
    return await said
