"""The event loop that all async handlers share, and what keeps it from going on.

One call that blocks it stops everybody's coroutines. The runner's watch asks it for a sign of life at every beat, and
looks at its thread when none comes: a call that is there beat after beat is the one that blocks.
"""

import asyncio
import inspect
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from onelane.bot.turn import AnyTurn
from onelane.errors import FRAMES_MAX, HandlerFailed, describe
from onelane.forks import children_end_here
from onelane.turns.event_loop import EventLoop

RUNNING: ContextVar[AnyTurn | None] = ContextVar("RUNNING", default=None)
"""The turn whose code runs. Every task and callback that its handler starts has it too."""

Answer = TypeVar("Answer")


class Blockage(NamedTuple):
    """The call that keeps the loop from going on."""

    beats: int
    """For how many beats it has been seen there."""
    turn: AnyTurn | None
    """Whose it is; None when no turn started it."""
    stack: str


class Visit:
    """What one turn awaits on the loop."""

    def __init__(self, awaits: Awaitable[Any], loop: EventLoop) -> None:
        self._awaits = awaits
        self._loop = loop
        self._is_over = False
        self._task: asyncio.Task[Any] | None = None
        """Set and read on the loop alone."""
        self.future = loop.run(self._run())

    def cancel(self) -> None:
        """Cancel it; one that has not begun never begins."""
        self._is_over = True
        self.future.cancel()

    def interrupt(self) -> None:
        """Cancel it; `future` ends when it has ended, unlike with `cancel`."""
        self._loop.call(self._cancel_task)

    def _cancel_task(self) -> None:
        self._is_over = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> Any:
        self._task = asyncio.current_task()
        if self._is_over:  # the loop learns of a cancellation behind this first step
            if inspect.iscoroutine(self._awaits):
                self._awaits.close()
            raise asyncio.CancelledError
        return await self._awaits


class HandlerLoop(EventLoop):
    """The handlers' loop."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__("handlers", now)
        self._handle: asyncio.Handle | None = None
        self._beats = 0

    def visit(self, awaits: Awaitable[Any]) -> Visit:
        """Await it on the loop, in the caller's context."""
        return Visit(awaits, self)

    def beat(self) -> Blockage | None:
        """Ask for a sign of life; return what the loop is kept by while the last one has not come."""
        if self.ask():
            self._handle, self._beats = None, 0
            return None
        frames, handle = self._call_at_hand()
        self._beats = self._beats + 1 if handle is self._handle else 0
        self._handle = handle
        turn = handle._context.get(RUNNING) if handle else None  # type: ignore[attr-defined]  # noqa: SLF001 - nothing public names who runs
        return Blockage(self._beats, turn, "".join(traceback.StackSummary.from_list(frames).format()))

    def _call_at_hand(self) -> tuple[list[traceback.FrameSummary], asyncio.Handle | None]:
        """Find what the loop's thread executes: the call's own frames, outermost first, and its handle."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - the only way to another's stack
        frames: list[tuple[FrameType, int]] = []
        while frame is not None:
            if frame.f_code is asyncio.Handle._run.__code__:  # noqa: SLF001 - as above
                return _innermost(frames), frame.f_locals["self"]
            frames.append((frame, frame.f_lineno))
            frame = frame.f_back
        return _innermost(frames), None


async def awaited(awaits: Awaitable[Answer]) -> Answer:
    """Make a coroutine, which a loop wants, of anything that can be awaited; what would end the loop is a failure."""
    try:
        with children_end_here():
            return await awaits
    except (SystemExit, KeyboardInterrupt) as error:
        raise HandlerFailed(describe(error)) from None


def _innermost(frames: list[tuple[FrameType, int]]) -> list[traceback.FrameSummary]:
    return list(traceback.StackSummary.extract(reversed(frames[:FRAMES_MAX])))
