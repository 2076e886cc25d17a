"""What threads answer, awaited on an event loop: many answers that come together wake the loop once."""

import asyncio
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary, ref

from onelane.errors import StoreUnavailable
from onelane.gathering import Gatherer
from onelane.model import JsonObject
from onelane.postgres.faults import refusal

Answer = TypeVar("Answer")


class Letterbox:
    """Calls that threads want an event loop to make, in the order in which they came."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._calls: deque[Callable[[], object]] = deque()
        self._is_woken = False
        """Whether the loop will look. It takes this back before it looks: a call that comes then wakes it again."""

    def post(self, call: Callable[[], object]) -> None:
        """Let the loop make `call`, soon."""
        self._calls.append(call)
        if not self._is_woken:
            self._is_woken = True
            if loop := self._loop():
                loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._is_woken = False
        while self._calls:
            self._calls.popleft()()


_letterboxes: WeakKeyDictionary[AbstractEventLoop, Letterbox] = WeakKeyDictionary()
"""Each is added by its own loop's thread."""


def answered(asked: Future[Answer]) -> asyncio.Future[Answer]:
    """Return a future of the running loop that ends as `asked` does; that it is cancelled is an error like others."""
    loop = asyncio.get_running_loop()
    letterbox = _letterbox(loop)
    answer: asyncio.Future[Answer] = loop.create_future()
    _forward(asked, answer, letterbox)
    return answer


def done(answer: JsonObject) -> JsonObject:
    """Return a gatherer's answer, or raise why nothing was done."""
    if answer["outcome"] == "refused":
        raise refusal(answer["sqlstate"])
    if answer["outcome"] == "skipped":
        raise StoreUnavailable("another transaction holds the user's row")
    return answer


async def all_answered(asked: Iterable[Future[Answer]]) -> None:
    """Wait until each has an answer or an error."""
    await asyncio.gather(*map(answered, asked), return_exceptions=True)


class Asking:
    """What coroutines ask of a gatherer in one round of their event loop is asked at once, and goes in one list."""

    def __init__(self, gatherer: Gatherer, *, is_left: bool = False) -> None:
        """With `is_left`, what nobody waits for any more is left out, unless it is under way."""
        self._gatherer = gatherer
        self._is_left = is_left
        self._asked: dict[str, tuple[JsonObject, asyncio.Future[JsonObject]]] = {}
        """By user: what one asks twice never shares a list."""

    def ask(self, item: JsonObject, whose: str) -> asyncio.Future[JsonObject]:
        """Ask for one item of a user, at the end of this round; see Gatherer.submit."""
        loop = asyncio.get_running_loop()
        if whose in self._asked:
            self._send()
        if not self._asked:
            loop.call_soon(self._send)
        answer: asyncio.Future[JsonObject] = loop.create_future()
        self._asked[whose] = (item, answer)
        return answer

    def _send(self) -> None:
        asked, self._asked = self._asked, {}
        if self._is_left:
            asked = {whose: one for whose, one in asked.items() if not one[1].done()}
        letterbox = _letterbox(asyncio.get_running_loop())
        futures = self._gatherer.submit_all([(item, whose) for whose, (item, _) in asked.items()])
        for future, (_, answer) in zip(futures, asked.values(), strict=True):
            _forward(future, answer, letterbox)
            if self._is_left:
                answer.add_done_callback(partial(_leave, future))


def _letterbox(loop: AbstractEventLoop) -> Letterbox:
    if (letterbox := _letterboxes.get(loop)) is None:
        letterbox = _letterboxes[loop] = Letterbox(loop)
    return letterbox


def _forward(asked: Future[Answer], answer: asyncio.Future[Answer], letterbox: Letterbox) -> None:
    asked.add_done_callback(lambda _: letterbox.post(partial(_pass_on, asked, answer)))


def _leave(asked: Future[Answer], answer: asyncio.Future[Answer]) -> None:
    if answer.cancelled():
        asked.cancel()


def _pass_on(asked: Future[Answer], answer: asyncio.Future[Answer]) -> None:
    if answer.done():
        return  # nobody waits any more
    try:
        answer.set_result(asked.result())
    except BaseException as error:  # noqa: BLE001 - whoever waits gets it
        answer.set_exception(error)
