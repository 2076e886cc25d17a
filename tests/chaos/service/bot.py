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
from typing import NamedTuple
from uuid import UUID, uuid4

from onelane.bot import AsyncTurn, Message, Turn
from onelane.bot.turn import AnyTurn
from tests.chaos.history import HISTORY, Recorder
from tests.chaos.service.orders import BLOCK, DYNO, Order, Orders
from tests.chaos.traffic.speech import BATCH, REDRIVEN, TOOL, Ask, answers_to, ask_of

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
            message_id=turn.messages[0].id,
            seq=turn.messages[0].seq,
            session_id=turn.session.id,
            text=turn.messages[0].text,
            members=_members(turn),
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
            self.recorder.note("end", run=run.name, result=run.result, members=_members(turn))

    def _live(self) -> None:
        while True:
            self._has_some.wait()
            self._has_some.clear()
            while self._since:
                time.sleep(ALIVE_S)
                for run, since in list(self._since.items()):
                    if time.monotonic() - since > ALIVE_S:
                        self.recorder.note("alive", run=run)


def _members(turn: AnyTurn) -> list[UUID]:
    return [message.id for message in turn.messages]


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

    async def newer(self, turn: AnyTurn) -> None:
        """Take in what has arrived since."""
        assert isinstance(turn, Turn)
        turn.newer()

    async def step(self, turn: AnyTurn, key: str, note: Callable[[str], None], seconds: float) -> None:
        """Ask a model, and keep that it was asked."""
        assert isinstance(turn, Turn)

        def act() -> str:
            note("begin")
            time.sleep(seconds)
            note("answered")
            return key

        turn.step(key, act)


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

    async def newer(self, turn: AnyTurn) -> None:
        """Take in what has arrived since."""
        assert isinstance(turn, AsyncTurn)
        await turn.newer()

    async def step(self, turn: AnyTurn, key: str, note: Callable[[str], None], seconds: float) -> None:
        """Ask a model, and keep that it was asked."""
        assert isinstance(turn, AsyncTurn)

        async def act() -> str:
            note("begin")
            await asyncio.sleep(seconds)
            note("answered")
            return key

        await turn.step(key, act)


Ways = Sync | Async


class Asked(NamedTuple):
    """What one message of a turn asks for."""

    turn: AnyTurn
    message: Message
    ask: Ask
    run: Run
    ways: Ways

    @property
    def seconds(self) -> float:
        """How long it is to take: what several ask for at once takes no longer than what one asks for."""
        return float(self.ask.argument) / len(self.turn.messages)


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
    if any(ask_of(message.text).word == "fork" for message in turn.messages) and (pid := os.fork()):
        threading.Thread(target=os.waitpid, args=(pid, 0), name="reaps", daemon=True).start()


async def _handle(turn: AnyTurn, ways: Ways) -> list[str]:
    answers = list[str]()
    with _runs().noted(turn) as run:
        if run.order is not None:
            await _obey(run.order, ways)
        answered = 0
        while answered < len(turn.messages):  # which may become more meanwhile
            answers += await _answer(turn, turn.messages[answered], run, ways)
            answered += 1
        if answered > 1:
            turn.save_tool_output(BATCH, {"seqs": [message.seq for message in turn.messages]})
    return answers


async def _answer(turn: AnyTurn, message: Message, run: Run, ways: Ways) -> list[str]:
    ask = ask_of(message.text)
    if act := ACTS.get(ask.word):
        await act(Asked(turn, message, ask, run, ways))
    for state in (turn.session.state, turn.user.state):
        state["n"] = state.get("n", 0) + 1
    if ask.word == "raise-until" and message.attempts < int(ask.argument):
        raise ValueError("too early")
    return answers_to(message.text, turn.session.state["n"])


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


async def _use_tool(asked: Asked) -> None:
    await asked.ways.sleep(asked.seconds)
    with _blaming("unread", asked.run):
        await asked.ways.read(asked.turn)
    asked.turn.save_tool_output(TOOL, {"key": asked.turn.idempotency_key, "seq": asked.message.seq})


async def _ask_model(asked: Asked) -> None:
    turn, key = asked.turn, asked.ask.tag

    def note(phase: str) -> None:
        _runs().recorder.note("call", user_id=turn.user.id, batch=turn.idempotency_key, key=key, phase=phase)

    with _blaming("unread", asked.run):
        await asked.ways.step(turn, key, note, asked.seconds)
    note("kept")


async def _take_newer(asked: Asked) -> None:
    _runs().recorder.note("newer", run=asked.run.name)
    with _blaming("unread", asked.run):
        await asked.ways.newer(asked.turn)


async def _shield(asked: Asked) -> None:
    with asked.turn.shield():
        await asked.ways.sleep(asked.seconds)


async def _sleep(asked: Asked) -> None:
    await asked.ways.sleep(asked.seconds)


async def _doze(asked: Asked) -> None:
    ends = time.monotonic() + asked.seconds
    while time.monotonic() < ends:
        if asked.turn.cancelled:
            raise Cancelled
        await asked.ways.sleep(DOZE_TICK_S)


async def _raise(asked: Asked) -> None:
    if not (_history() / REDRIVEN / str(asked.message.id)).exists():
        raise ValueError("not before it is redriven")


async def _hang(asked: Asked) -> None:
    if _times(asked.message) == 1:
        await asked.ways.sleep(float(os.environ["TURN_TIMEOUT_S"]) + HANGS_BEYOND_S)


async def _crash(asked: Asked) -> None:
    if _times(asked.message) <= int(asked.ask.argument):
        _runs().recorder.note("end", run=asked.run.name, result="crashed", members=_members(asked.turn))
        os._exit(EXIT_CRASHED)


async def _bye(asked: Asked) -> None:
    asked.turn.end_session()


async def _escalate(asked: Asked) -> None:
    asked.turn.escalate()


ACTS: dict[str, Callable[[Asked], Awaitable[None]]] = {
    "tool": _use_tool,
    "ask": _ask_model,
    "newer": _take_newer,
    "shield": _shield,
    "sleep": _sleep,
    "doze": _doze,
    "raise": _raise,
    "hang": _hang,
    "crash": _crash,
    "bye": _bye,
    "escalate": _escalate,
}
"""What each request does beyond the answer."""


def _times(message: Message) -> int:
    """Count this run of the message among all, also those whose process died of it."""
    (_history() / "runs").mkdir(exist_ok=True)
    with (_history() / "runs" / str(message.id)).open("ab", buffering=0) as file:
        file.write(b".")
        return file.tell()


def _history() -> Path:
    return Path(os.environ[HISTORY])


if IS_WORKER:
    from tests.chaos.service import recording

    recording.install("worker")
    _runs()
