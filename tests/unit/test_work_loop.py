"""The loop on which all shifts run, and the threads of sync handlers beside it."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import pytest

from onelane.errors import IsolationBroken
from onelane.gathering import Gatherer
from onelane.model import JsonObject
from onelane.turns import handler_threads
from onelane.turns.answers import Asking
from onelane.turns.event_loop import EventLoop, WorkLoop
from onelane.turns.handler_threads import HandlerThreads, LeaseThread
from tests.conftest import DEADLINE_S, eventually

NAME: ContextVar[str] = ContextVar("NAME", default="nobody")
BEATS = 3


@pytest.fixture
def loop() -> WorkLoop:
    return WorkLoop()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What blocks a loop; opened when the test ends."""
    gate = threading.Event()
    yield gate
    gate.set()


def blocked(loop: EventLoop, gate: threading.Event) -> None:
    """Block the loop, and return once it is."""
    arrived = threading.Event()

    async def block() -> None:
        arrived.set()
        gate.wait(DEADLINE_S)

    loop.run_all([block()])
    assert arrived.wait(DEADLINE_S)


def test_coroutines_that_begin_together_take_their_first_steps_before_anything_else(loop: WorkLoop) -> None:
    steps: list[str] = []

    async def step(name: str) -> None:
        steps.append(f"{name} begins")
        await asyncio.sleep(0)
        steps.append(f"{name} goes on")

    async def both() -> None:
        loop.run_all([step("a"), step("b")])

    loop.run(both()).result(DEADLINE_S)
    eventually(lambda: len(steps) == 4)
    assert steps[:2] == ["a begins", "b begins"]


def test_each_coroutine_has_a_context_of_its_own(loop: WorkLoop) -> None:
    seen: list[str] = []

    async def name(value: str) -> None:
        seen.append(NAME.get())
        NAME.set(value)

    loop.run_all(name(value) for value in ("alice", "bob"))
    eventually(lambda: len(seen) == 2)
    assert seen == ["nobody", "nobody"]
    assert NAME.get() == "nobody"


def test_its_clock_stands_still_while_it_is_blocked_and_missed_beats_are_counted(
    loop: WorkLoop, gate: threading.Event
) -> None:
    blocked(loop, gate)
    assert loop.ask()
    before = loop.clock()
    for _ in range(BEATS):
        assert not loop.ask()
    assert loop.missed == BEATS
    assert loop.clock() == before
    gate.set()
    assert eventually(loop.ask)
    assert loop.missed == 0


def test_a_thread_serves_one_lease_after_the_other_and_ends_when_none_needs_it(
    loop: WorkLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, found = HandlerThreads(), []
    for idle_s in (DEADLINE_S, DEADLINE_S, 0.05):
        monkeypatch.setattr(handler_threads, "IDLE_S", idle_s)
        lease = LeaseThread(threads)
        found += [loop.run(lease.run(threading.current_thread)).result(DEADLINE_S) for _ in range(2)]
        lease.end()
    assert len(set(found)) == 1
    assert found[0] not in {threading.current_thread(), loop._thread}
    found[0].join(DEADLINE_S)
    assert not found[0].is_alive()


def test_a_thread_that_hangs_keeps_nobody_waiting_also_when_its_lease_has_ended(loop: WorkLoop) -> None:
    threads, gate = HandlerThreads(), threading.Event()
    hanging, other = LeaseThread(threads), LeaseThread(threads)
    hangs = loop.run(hanging.run(lambda: gate.wait(DEADLINE_S)))
    assert eventually(lambda: hanging._made is not None)
    hanging.end()
    assert loop.run(other.run(lambda: 1)).result(DEADLINE_S) == 1
    gate.set()
    assert hangs.result(DEADLINE_S)


def test_a_thread_in_which_a_call_failed_makes_no_other_call(loop: WorkLoop) -> None:
    threads, found = HandlerThreads(), []

    def fail() -> None:
        found.append(threading.current_thread())
        raise ValueError("failed")

    lease = LeaseThread(threads)
    with pytest.raises(ValueError, match="failed"):
        loop.run(lease.run(fail)).result(DEADLINE_S)
    assert loop.run(lease.run(threading.current_thread)).result(DEADLINE_S) is not found[0]
    found[0].join(DEADLINE_S)
    assert not found[0].is_alive()


def test_whatever_a_call_in_a_lease_thread_raises_is_raised_where_it_is_awaited(loop: WorkLoop) -> None:
    def fail() -> None:
        raise SystemExit(3)

    async def run() -> int:
        try:
            await LeaseThread(HandlerThreads()).run(fail)
        except SystemExit as error:
            return int(str(error.code))
        return 0

    assert loop.run(run()).result(DEADLINE_S) == 3


def test_a_system_that_starts_no_thread_says_so(loop: WorkLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(handler_threads, "Thread", refuse)
    with pytest.raises(IsolationBroken, match="starts no thread"):
        LeaseThread(HandlerThreads()).start()


# many ask together


def test_what_coroutines_ask_in_one_round_of_their_loop_goes_in_one_list(loop: WorkLoop) -> None:
    lists: list[list[JsonObject]] = []

    def ask(items: Sequence[JsonObject], _waits: bool) -> list[JsonObject]:
        lists.append(list(items))
        return [{"outcome": "turn", **item} for item in items]

    asking = Asking(Gatherer(ask))

    async def ask_all() -> list[JsonObject]:
        return await asyncio.gather(*(asking.ask({"nr": nr}, f"user {nr}") for nr in range(5)))

    assert [answer["nr"] for answer in loop.run(ask_all()).result(DEADLINE_S)] == list(range(5))
    assert [len(items) for items in lists] == [5]


def test_what_one_user_asks_twice_never_shares_a_list(loop: WorkLoop) -> None:
    lists: list[int] = []

    def ask(items: Sequence[JsonObject], _waits: bool) -> list[JsonObject]:
        lists.append(len(items))
        return [{"outcome": "turn"} for _ in items]

    asking = Asking(Gatherer(ask))

    async def ask_twice() -> None:
        await asyncio.gather(*(asking.ask({"nr": nr}, "alice") for nr in range(2)))

    loop.run(ask_twice()).result(DEADLINE_S)
    assert lists == [1, 1]
