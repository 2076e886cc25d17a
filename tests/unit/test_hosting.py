"""Handlers on the event loop that all share: what they get, and what one of them can do to the others."""

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from onelane.bot import AsyncTurn, Turn
from onelane.bot.memory import Memory
from onelane.errors import HandlerFailed
from onelane.lanes.holding import Holding
from onelane.model import JsonObject, Lease, Message, SessionRead, TurnRead, UserRead
from onelane.turns.bots import Act
from onelane.turns.event_loop import WorkLoop
from onelane.turns.handler_threads import HandlerThreads, LeaseThread
from onelane.turns.hosting import Host
from onelane.turns.loop import Blockage
from tests import loops
from tests.conftest import eventually

AsyncHandler = Callable[[AsyncTurn], Awaitable[Any]]


class Gated(Memory):
    """A memory that answers when its gate is opened."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def history(self, session_id: UUID, limit: int) -> list[Any]:
        assert self.gate.wait(30)
        return [limit]

    def tool_output(self, session_id: UUID, name: str) -> Any:
        assert self.gate.wait(30)
        return f"what was saved under {name}"


def turn_read(text: str) -> TurnRead:
    now = datetime.now(UTC)
    message = Message(id=uuid4(), seq=1, text=text, button=None, attachments=(), accepted_at=now, attempts=0)
    user = UserRead(id=uuid4(), channel="demo", sender="s", state={})
    return TurnRead(
        version=1,
        messages=(message,),
        user=user,
        session=SessionRead(id=uuid4(), status="active", started_at=now, state={}),
    )


class Stage:
    """A host with one handler for every text, each awaited on a loop as shifts are."""

    def __init__(self) -> None:
        self.acts: dict[str, AsyncHandler] = {"hello": _hello}
        self.memory = Gated()
        self.loop = WorkLoop()
        self.host = Host(30, self.loop.clock)

    def run(self, text: str, holding: Holding | None = None) -> Future[JsonObject]:
        thread = LeaseThread(HandlerThreads())
        act = Act(self._handle)
        return self.loop.run(self.host.run(act, turn_read(text), self.memory, holding or a_holding(), thread))

    async def _handle(self, turn: AsyncTurn) -> Any:
        return await self.acts[turn.message.text](turn)


async def _hello(turn: AsyncTurn) -> str:
    return "hello"


def a_holding() -> Holding:
    return Holding(Lease(user_id=uuid4(), token="w:1", fence=1))


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a call waits for that blocks the loop; opened when the test ends."""
    gate = threading.Event()
    yield gate
    gate.set()


def replies(effects: JsonObject) -> list[str]:
    return [reply["text"] for reply in effects["replies"]]


def blockage(host: Host, beats: int = 3) -> Blockage:
    """Beat until the loop is found blocked for so many beats, by a turn's `_blocked_call`."""

    def found() -> Blockage | None:
        blocked = host.beat()
        is_there = blocked and blocked.beats >= beats and blocked.turn and "_blocked_call" in blocked.stack
        return blocked if is_there else None

    seen: Blockage = eventually(found)
    return seen


# what a handler gets


def test_an_async_handler_reads_by_coroutines_and_a_sync_one_by_plain_calls(stage: Stage) -> None:
    stage.memory.gate.set()

    async def reads(turn: AsyncTurn) -> str:
        turn.save_tool_output("mine", 1)
        return f"{await turn.history(7)} {await turn.tool_output('x')} {await turn.tool_output('mine')}"

    def reads_plainly(turn: Turn) -> str:
        return f"{turn.history(7)} {turn.tool_output('x')}"

    stage.acts["read"] = reads
    assert replies(stage.run("read").result()) == ["[7] what was saved under x 1"]
    plain = Act(reads_plainly)
    effects = loops.run(
        Host(30).run(plain, turn_read("read"), stage.memory, a_holding(), LeaseThread(HandlerThreads()))
    )
    assert replies(effects) == ["[7] what was saved under x"]


class Bot:
    async def __call__(self, turn: AsyncTurn) -> str:
        return type(turn).__name__

    async def method(self, turn: AsyncTurn, greeting: str = "") -> str:
        return greeting + type(turn).__name__


@pytest.mark.parametrize("handler", [Bot(), Bot().method, partial(Bot().method, greeting="")])
def test_whatever_python_calls_an_async_function_gets_an_async_turn(handler: AsyncHandler) -> None:
    effects = loops.run(Host(30).run(Act(handler), turn_read(""), Gated(), a_holding(), LeaseThread(HandlerThreads())))
    assert replies(effects) == ["AsyncTurn"]


def test_a_read_that_takes_long_keeps_nobody_else_from_the_loop(stage: Stage) -> None:
    async def reads(turn: AsyncTurn) -> str:
        return str(await turn.history(3))

    async def opens(turn: AsyncTurn) -> str:
        stage.memory.gate.set()
        return "opened"

    stage.acts |= {"read": reads, "open": opens}
    reading = stage.run("read")
    assert replies(stage.run("open").result(30)) == ["opened"]
    assert replies(reading.result(30)) == ["[3]"]


# the loop goes on


def test_a_handler_that_stops_the_loop_or_leaves_by_system_exit_ends_nobody_elses_turn(stage: Stage) -> None:
    async def stops(turn: AsyncTurn) -> str:
        asyncio.get_running_loop().stop()
        return "stopped"

    async def exits(turn: AsyncTurn) -> str:
        sys.exit(3)

    async def exits_in_a_task(turn: AsyncTurn) -> str:
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        return "left"

    stage.acts |= {"stop": stops, "exit": exits, "task": exits_in_a_task}
    for text in ("stop", "task"):
        stage.run(text).result(30)
        assert replies(stage.run("hello").result(30)) == ["hello"]
    with pytest.raises(HandlerFailed, match="SystemExit"):
        stage.run("exit").result(30)
    assert replies(stage.run("hello").result(30)) == ["hello"]


def test_a_coroutine_that_is_cancelled_before_its_first_step_never_begins(stage: Stage, gate: threading.Event) -> None:
    begun = []

    async def begins(turn: AsyncTurn) -> None:
        begun.append(turn)

    stage.acts |= {"block": partial(_blocks, gate), "begin": begins}
    blocking = stage.run("block")
    blockage(stage.host)
    holding = a_holding()
    second = stage.run("begin", holding)
    eventually(lambda: holding._on_cancel)
    holding.cancel()
    with pytest.raises(HandlerFailed, match="cancelled"):
        second.result(30)
    gate.set()
    blocking.result(30)
    assert replies(stage.run("hello").result(30)) == ["hello"]
    assert begun == []


# the loop is blocked


def _blocked_call(gate: threading.Event) -> None:
    gate.wait()


async def _blocks(gate: threading.Event, turn: AsyncTurn) -> None:
    _blocked_call(gate)


async def _blocks_in_a_task(gate: threading.Event, turn: AsyncTurn) -> None:
    await asyncio.gather(_blocks(gate, turn), asyncio.sleep(0))


async def _blocks_in_a_callback(gate: threading.Event, turn: AsyncTurn) -> None:
    asyncio.get_running_loop().call_soon(_blocked_call, gate)
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", [_blocks, _blocks_in_a_task, _blocks_in_a_callback])
def test_the_call_that_blocks_the_loop_is_found_with_its_turn_and_its_stack(
    stage: Stage, gate: threading.Event, way: Callable[..., Awaitable[None]]
) -> None:
    async def waits(turn: AsyncTurn) -> str:
        await asyncio.sleep(0.01)
        return "waited"

    stage.acts |= {"block": partial(way, gate), "wait": waits}
    bystander = stage.run("wait")
    blocking = stage.run("block")
    seen = blockage(stage.host)
    assert seen.turn is not None
    assert seen.turn.message.text == "block"
    assert "_blocked_call" in seen.stack
    assert "run_forever" not in seen.stack
    gate.set()
    blocking.result(30)
    assert replies(bystander.result(30)) == ["waited"]
    assert eventually(lambda: stage.host.beat() is None)


def test_a_loop_with_much_to_do_is_not_blocked(stage: Stage) -> None:
    """Whatever the watch finds there is another call each time."""
    done = threading.Event()

    def work() -> None:
        time.sleep(0.001)
        if not done.is_set():
            asyncio.get_running_loop().call_soon(work)

    async def works(turn: AsyncTurn) -> None:
        for _ in range(500):
            asyncio.get_running_loop().call_soon(work)

    stage.acts["work"] = works
    stage.run("work").result(30)
    found: list[int | None] = []

    def finds_others() -> bool:
        blocked = stage.host.beat()
        found.append(blocked.beats if blocked else None)
        others = [now == 0 for before, now in pairwise(found) if before is not None]
        return others.count(True) >= 5

    eventually(finds_others)
    done.set()


class Timed(Host):
    """Has a clock that the test sets, and counts the looks at it."""

    def __init__(self) -> None:
        super().__init__(0.1, lambda: self.now_s)
        self.now_s = 0.0
        self.looks = 0

    def clock(self) -> float:
        """Look at the clock."""
        self.looks += 1
        return super().clock()


def test_the_time_in_which_the_loop_is_blocked_counts_for_nobody(stage: Stage, gate: threading.Event) -> None:
    stage.host = host = Timed()
    waiting, blocked, is_over = threading.Event(), threading.Event(), asyncio.Event()

    async def waits(turn: AsyncTurn) -> str:
        waiting.set()
        await is_over.wait()
        return "waited"

    async def blocks(turn: AsyncTurn) -> str:
        blocked.set()
        gate.wait()
        is_over.set()
        return "blocked"

    stage.acts |= {"wait": waits, "block": blocks}
    bystander = stage.run("wait")
    assert waiting.wait(30)
    blocking = stage.run("block")
    assert blocked.wait(30)
    eventually(host.beat)
    host.now_s += 3_600
    before = host.looks
    eventually(lambda: bystander.done() or host.looks > before + 4)
    gate.set()
    assert [replies(turn.result(30)) for turn in (bystander, blocking)] == [["waited"], ["blocked"]]
