"""What threads answer, awaited on a loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import pytest

from onelane.turns.answers import Letterbox, answered
from tests import loops

MANY = 100


def _in_a_thread(answer: Callable[[Future[str]], object]) -> str:
    async def ask() -> str:
        asked: Future[str] = Future()
        with ThreadPoolExecutor(1) as threads:
            threads.submit(answer, asked)
            return await answered(asked)

    return loops.run(ask())


def test_a_threads_answer_is_awaited_and_its_error_raised() -> None:
    assert _in_a_thread(lambda asked: asked.set_result("yes")) == "yes"
    with pytest.raises(KeyError):
        _in_a_thread(lambda asked: asked.set_exception(KeyError("no")))


def test_a_cancelled_question_is_an_error_and_cancels_nobody_who_awaits_it() -> None:
    with pytest.raises(CancelledError):
        _in_a_thread(lambda asked: asked.cancel())


def test_many_answers_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> tuple[list[int], int]:
        loop, wakes = asyncio.get_running_loop(), []
        wake = loop.call_soon_threadsafe

        def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
            wakes.append(args)
            return wake(*args, **kwargs)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        asked: list[Future[int]] = [Future() for _ in range(MANY)]
        answers = [answered(one) for one in asked]
        for nr, one in enumerate(asked):
            one.set_result(nr)
        return [await answer for answer in answers], len(wakes)

    found, wakes = loops.run(ask())
    assert found == list(range(MANY))
    assert wakes == 1


def test_what_comes_while_the_loop_looks_is_found_too() -> None:
    async def post() -> list[int]:
        made: list[int] = []
        box = Letterbox(asyncio.get_running_loop())

        def again(left: int) -> None:
            made.append(left)
            if left:
                box.post(lambda: again(left - 1))

        box.post(lambda: again(3))
        for _ in range(4):
            await asyncio.sleep(0)
        return made

    assert loops.run(post()) == [3, 2, 1, 0]


def test_an_answer_for_which_nobody_waits_any_more_is_dropped() -> None:
    async def ask() -> bool:
        asked: Future[str] = Future()
        answer = answered(asked)
        answer.cancel()
        asked.set_result("late")
        await asyncio.sleep(0)
        return answer.cancelled()

    assert loops.run(ask())
