"""The handlers of a run, HANDLER=tests.chaos.service.bot:handle and, async, `:handle_async`.

They do what a message asks (see `traffic/speech.py`), and what the storm orders (see `orders.py`).

Environment: CHAOS_HISTORY, TURN_TIMEOUT_S as the worker has it, CHAOS_DYNO (whose orders to take).
Imported in a worker it also installs the recording; in an isolated child, which has no ledger, it does not.

What it did it notes; what it must remember beyond its process's death (which messages have crashed or hung, which were
redriven) are files in the history.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

from onelane.bot import AsyncTurn, Turn
from onelane.turn import AnyTurn
from tests.chaos.history import HISTORY, Recorder
from tests.chaos.service.orders import BLOCK, DYNO, Order, Orders
from tests.chaos.traffic.speech import REDRIVEN, TOOL, Ask, answers_to, ask_of

ALIVE_S = 0.05
DOZE_TICK_S = 0.02
HANGS_BEYOND_S = 2.0
EXIT_CRASHED = 70
IS_WORKER = HISTORY in os.environ and "onelane.turns.records" in sys.modules
"""Whether this process is a worker, and neither an isolated child nor a test."""


class Cancelled(Exception):  # noqa: N818 - it names a state
    """The turn was asked to stop, and does."""


@dataclass
class Run:
    """One run of the handler."""

    name: str
    order: Order | None
    """What the storm wants of it."""
    result: str = "raised"


class Runs:
    """The runs of this process that have not ended; those that take long give signs of life."""

    def __init__(self) -> None:
        self.recorder = Recorder("bot")
        self._orders = Orders(_history(), os.environ[DYNO]) if IS_WORKER else None
        self._since: dict[str, float] = {}
        self._has_some = threading.Event()
        threading.Thread(target=self._live, name="signs-of-life", daemon=True).start()

    @contextmanager
    def noted(self, turn: AnyTurn) -> Iterator[Run]:
        """Note the begin and the end of a run, however it ends."""
        run = Run(uuid4().hex, self._orders.take() if self._orders else None)
        self.recorder.note(
            "start",
            run=run.name,
            user_id=turn.user.id,
            sender=turn.user.sender,
            message_id=turn.message.id,
            seq=turn.message.seq,
            session_id=turn.session.id,
            text=turn.message.text,
            order=run.order and run.order.deed,
        )
        self._since[run.name] = time.monotonic()
        self._has_some.set()
        try:
            yield run
            run.result = "ok"
        except (Cancelled, asyncio.CancelledError):
            run.result = "cancelled"
            raise
        finally:
            del self._since[run.name]
            self.recorder.note("end", run=run.name, result=run.result)

    def _live(self) -> None:
        while True:
            self._has_some.wait()
            self._has_some.clear()
            while self._since:
                time.sleep(ALIVE_S)
                for run, since in list(self._since.items()):
                    if time.monotonic() - since > ALIVE_S:
                        self.recorder.note("alive", run=run)


@cache
def _runs() -> Runs:
    return Runs()


class Sync:
    """How the bot waits in a thread of its own: nothing here ever suspends its coroutine."""

    async def sleep(self, seconds: float) -> None:
        """Keep the thread waiting."""
        time.sleep(seconds)  # noqa: ASYNC251 - no loop is near

    async def read(self, turn: AnyTurn) -> None:
        """Read like a bot that reads."""
        assert isinstance(turn, Turn)
        turn.history(limit=5)
        turn.tool_output(TOOL)


class Async:
    """How the bot waits on the event loop that it shares with all other turns."""

    async def sleep(self, seconds: float) -> None:
        """Let others go on."""
        await asyncio.sleep(seconds)

    async def read(self, turn: AnyTurn) -> None:
        """Read like a bot that reads."""
        assert isinstance(turn, AsyncTurn)
        await turn.history(limit=5)
        await turn.tool_output(TOOL)


Ways = Sync | Async


def handle(turn: Turn) -> list[str]:
    """Do what the message asks, call the provider's API, and answer."""
    handling = _handle(turn, Sync())
    try:
        handling.send(None)
    except StopIteration as done:
        _fork_if_asked(turn)
        answers: list[str] = done.value
        return answers
    raise RuntimeError("a handler that has a thread of its own was suspended")


async def handle_async(turn: AsyncTurn) -> list[str]:
    """Do the same on an event loop."""
    answers = await _handle(turn, Async())
    _fork_if_asked(turn)
    return answers


def _fork_if_asked(turn: AnyTurn) -> None:
    """Let a child leave the handler, too."""
    if ask_of(turn.message.text).word == "fork" and (pid := os.fork()):
        threading.Thread(target=os.waitpid, args=(pid, 0), name="reaps", daemon=True).start()


async def _handle(turn: AnyTurn, ways: Ways) -> list[str]:
    ask = ask_of(turn.message.text)
    with _runs().noted(turn) as run:
        if run.order is not None:
            await _obey(run.order, ways)
        if act := ACTS.get(ask.word):
            await act(turn, ask, run, ways)
        for state in (turn.session.state, turn.user.state):
            state["n"] = state.get("n", 0) + 1
        answers = answers_to(turn.message.text, turn.session.state["n"])
        if ask.word == "raise-until" and turn.message.attempts < int(ask.argument):
            raise ValueError("too early")
    return answers


async def _obey(order: Order, ways: Ways) -> None:
    if order.deed == BLOCK:
        time.sleep(order.lasts_s)  # noqa: ASYNC251 - that is the fault
    else:
        await ways.sleep(order.lasts_s)


@contextmanager
def _blaming(result: str, run: Run) -> Iterator[None]:
    """Note of an error in here that it is not the message's."""
    try:
        yield
    except Exception:
        run.result = result
        raise


async def _use_tool(turn: AnyTurn, ask: Ask, run: Run, ways: Ways) -> None:
    await ways.sleep(float(ask.argument))
    with _blaming("unread", run):
        await ways.read(turn)
    turn.save_tool_output(TOOL, {"key": turn.idempotency_key, "seq": turn.message.seq})


async def _sleep(_turn: AnyTurn, ask: Ask, _run: Run, ways: Ways) -> None:
    await ways.sleep(float(ask.argument))


async def _doze(turn: AnyTurn, ask: Ask, _run: Run, ways: Ways) -> None:
    ends = time.monotonic() + float(ask.argument)
    while time.monotonic() < ends:
        if turn.cancelled:
            raise Cancelled
        await ways.sleep(DOZE_TICK_S)


async def _raise(turn: AnyTurn, _ask: Ask, _run: Run, _ways: Ways) -> None:
    if not (_history() / REDRIVEN / str(turn.message.id)).exists():
        raise ValueError("not before it is redriven")


async def _hang(turn: AnyTurn, _ask: Ask, _run: Run, ways: Ways) -> None:
    if _times(turn) == 1:
        await ways.sleep(float(os.environ["TURN_TIMEOUT_S"]) + HANGS_BEYOND_S)


async def _crash(turn: AnyTurn, ask: Ask, run: Run, _ways: Ways) -> None:
    if _times(turn) <= int(ask.argument):
        _runs().recorder.note("end", run=run.name, result="crashed")
        os._exit(EXIT_CRASHED)


async def _bye(turn: AnyTurn, _ask: Ask, _run: Run, _ways: Ways) -> None:
    turn.end_session()


async def _escalate(turn: AnyTurn, _ask: Ask, _run: Run, _ways: Ways) -> None:
    turn.escalate()


ACTS: dict[str, Callable[[AnyTurn, Ask, Run, Ways], Awaitable[None]]] = {
    "tool": _use_tool,
    "sleep": _sleep,
    "doze": _doze,
    "raise": _raise,
    "hang": _hang,
    "crash": _crash,
    "bye": _bye,
    "escalate": _escalate,
}
"""What each request does beyond the answer."""


def _times(turn: AnyTurn) -> int:
    """Count this run of the message among all, also those whose process died of it."""
    (_history() / "runs").mkdir(exist_ok=True)
    with (_history() / "runs" / str(turn.message.id)).open("ab", buffering=0) as file:
        file.write(b".")
        return file.tell()


def _history() -> Path:
    return Path(os.environ[HISTORY])


if IS_WORKER:
    from tests.chaos.service import recording

    recording.install("worker")
    _runs()
