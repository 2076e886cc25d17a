"""The event loop that all async handlers share, and what keeps it from going on.

One call that blocks it stops everybody's coroutines. The runner's watch asks it for a sign of life at every beat, and
looks at its thread when none comes: a call that is there beat after beat is the one that blocks. Beats are counted, and
not seconds: a process that was stopped has missed both the answer and the beats.
"""

import asyncio
import inspect
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from types import FrameType
from typing import NamedTuple

from onelane.bot import AnyTurn, Replies
from onelane.errors import FRAMES_MAX, HandlerFailed, describe
from onelane.forks import children_end_here, end_in_children

RUNNING: ContextVar[AnyTurn | None] = ContextVar("RUNNING", default=None)
"""The turn whose code runs. Every task and callback that its handler starts has it too."""


class Blockage(NamedTuple):
    """The call that keeps the loop from going on."""

    beats: int
    """For how many beats it has been seen there."""
    turn: AnyTurn | None
    """Whose it is; None when no turn started it."""
    stack: str


class Visit:
    """One turn's coroutine on the loop."""

    def __init__(self, replies: Awaitable[Replies], loop: asyncio.AbstractEventLoop) -> None:
        self._replies = replies
        self._is_over = False
        self.future: Future[Replies] = asyncio.run_coroutine_threadsafe(self._run(), loop)

    def cancel(self) -> None:
        """Cancel it; one that has not begun never begins."""
        self._is_over = True
        self.future.cancel()

    async def _run(self) -> Replies:
        if self._is_over:  # the loop learns of a cancellation behind this first step
            if inspect.iscoroutine(self._replies):
                self._replies.close()
            raise asyncio.CancelledError
        return await awaited(self._replies)


class HandlerLoop:
    """One event loop, in a thread of its own."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is the clock without which the loop cannot work either."""
        self._now = now
        self._loop = asyncio.new_event_loop()
        end_in_children(self._loop)
        self._asked_at: float | None = None
        """When the sign of life was asked for that has not come yet. Set by the watch, taken back by the loop."""
        self._late_s = 0.0
        """For how long the loop has let such questions wait, in all."""
        self._handle: asyncio.Handle | None = None
        self._beats = 0
        self._thread = threading.Thread(target=self._go_on, name="handlers", daemon=True)
        self._thread.start()

    def visit(self, replies: Awaitable[Replies]) -> Visit:
        """Await `replies` on the loop, in the caller's context."""
        return Visit(replies, self._loop)

    def clock(self) -> float:
        """Return the time in seconds, on a monotonic clock that stands still while the loop does not answer."""
        asked_at = self._asked_at
        return (self._now() if asked_at is None else asked_at) - self._late_s

    def beat(self) -> Blockage | None:
        """Ask for a sign of life; return what the loop is kept by while the last one has not come."""
        if self._asked_at is None:
            self._handle, self._beats = None, 0
            self._asked_at = self._now()
            self._loop.call_soon_threadsafe(self._answer)
            return None
        frames, handle = self._call_at_hand()
        self._beats = self._beats + 1 if handle is self._handle else 0
        self._handle = handle
        turn = handle._context.get(RUNNING) if handle else None  # type: ignore[attr-defined]  # noqa: SLF001 - nothing public names who runs
        return Blockage(self._beats, turn, "".join(traceback.StackSummary.from_list(frames).format()))

    def _answer(self) -> None:
        if self._asked_at is not None:
            self._late_s += self._now() - self._asked_at
            self._asked_at = None

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

    def _go_on(self) -> None:
        """Run for ever: also when a handler stops the loop, or leaves a task of its own by SystemExit."""
        while True:
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()


async def awaited(replies: Awaitable[Replies]) -> Replies:
    """Make a coroutine, which a loop wants, of anything that can be awaited; what would end the loop is a failure."""
    try:
        with children_end_here():
            return await replies
    except (SystemExit, KeyboardInterrupt) as error:
        raise HandlerFailed(describe(error)) from None


def _innermost(frames: list[tuple[FrameType, int]]) -> list[traceback.FrameSummary]:
    return list(traceback.StackSummary.extract(reversed(frames[:FRAMES_MAX])))
