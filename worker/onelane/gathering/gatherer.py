"""What many threads and coroutines ask of one SQL function at once goes to Postgres in few lists.

`grouping` decides what is sent when; here are the threads that send it. They begin when they are needed, end with the
process, and cost nothing while nobody asks: a thread waits until there is something to send, or until the next look.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from math import inf
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any, Final

from onelane import forks
from onelane.errors import StoreUnavailable
from onelane.gathering.grouping import DEADLINE_S, Grouping
from onelane.gathering.requests import Answers, Call, Request
from onelane.model import JsonObject

AT_ONCE: Final = 4

Ask = Callable[[Sequence[JsonObject], bool], list[JsonObject]]
"""Sends a list, with whether to wait for rows that somebody holds; answers each item, or raises for all."""


class Gatherer:
    """One SQL function, as all of a process ask it."""

    def __init__(self, ask: Ask, *, at_once: int = AT_ONCE) -> None:
        """Send at most `at_once` calls at once, or two: half of them lists, half of them items that go alone."""
        self._ask = ask
        self._changing = Condition()
        """Guards what follows. Nobody is answered under it: who gets an answer may ask again at once."""
        self._grouping = Grouping(at_once)
        self._idle = 0
        """Senders that wait for a call."""
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._lookout: Thread | None = None
        self._looks_at = inf
        """When the lookout looks next."""
        self._is_closed = False
        self._answered_at = 0.0
        """When a call was last answered, well or not."""

    def stands_still_s(self) -> float:
        """Return for how many seconds calls have been under way and none was answered."""
        now = time.monotonic()
        with self._changing:
            since = self._grouping.under_way_since()
            return 0.0 if since is None else now - max(since, self._answered_at)

    def submit(self, item: JsonObject, whose: str) -> "Future[JsonObject]":
        """Ask for one item of a user; the answer comes, or StoreUnavailable or StoreRefused is raised, in time.

        The answer may be `refused`, or `skipped` if somebody holds the user's row for long.
        """
        [future] = self.submit_all([(item, whose)])
        return future

    def submit_all(self, asked: Sequence[tuple[JsonObject, str]]) -> list["Future[JsonObject]"]:
        """Ask for several items, each with whose it is; those of one user are done in their order."""
        futures: list[Future[JsonObject]] = [Future() for _ in asked]
        now = time.monotonic()
        requests: dict[str, Request] = {}
        for future, (item, whose) in zip(futures, asked, strict=True):
            requests.setdefault(whose, Request(whose, now + DEADLINE_S)).add(item, future)
        if forks.is_child():
            answers = _all_get(requests.values(), "a handler's forked child has no Postgres")
        else:
            with self._changing:
                answers = self._taken(requests.values(), now)
        _answer(answers)
        return futures

    def ask(self, item: JsonObject, whose: str) -> JsonObject:
        """Ask, and wait for the answer."""
        return self.submit(item, whose).result()

    def close(self) -> None:
        """Send nothing more. What is under way is still answered."""
        with self._changing:
            self._is_closed = True
            answers = self._abandoned()
            for _ in range(self._idle):
                self._calls.put(None)
            self._changing.notify()
        _answer(answers)

    def _taken(self, requests: Collection[Request], now: float) -> Answers:
        if self._is_closed:
            return _all_get(requests, "this process ends")
        if not self._grouping.add(requests):
            return _all_get(requests, "too many wait for Postgres")
        return self._send_what_is_ready(now)

    def _send_what_is_ready(self, now: float) -> Answers:
        """Give what is ready to senders; return the answers to what no sender could be had for."""
        answers: Answers = []
        try:
            while call := self._grouping.next_call(now):
                try:
                    self._give_to_sender(call)
                except RuntimeError:
                    answers += self._grouping.failed(call, StoreUnavailable("no thread to ask Postgres"), now)
            self._keep_lookout(now)
        except RuntimeError:
            answers += self._grouping.abandoned(StoreUnavailable("no thread to watch over what is asked"))
        return answers

    def _give_to_sender(self, call: Call) -> None:
        if self._idle:
            self._idle -= 1
            self._calls.put(call)
        else:
            Thread(target=self._send_all, args=(call,), name="sender", daemon=True).start()

    def _send_all(self, call: Call | None) -> None:
        """Be a sender: send one call after the other."""
        while call is not None:
            _answer(self._sent(call))
            with self._changing:
                if self._is_closed:
                    return
                self._idle += 1
            call = self._calls.get()

    def _sent(self, call: Call) -> Answers:
        """Send a call, and what has become ready by its answers; return those that are final."""
        answers: list[JsonObject] | Exception
        try:
            answers = self._ask(call.items, call.waits)
            if not _fit(answers, call):
                answers = StoreUnavailable("Postgres did not answer each item")
        except Exception as error:  # noqa: BLE001 - who asked raises it
            answers = error
        now = time.monotonic()
        with self._changing:
            self._answered_at = now
            if isinstance(answers, Exception):
                final = self._grouping.failed(call, answers, now)
            else:
                final = self._grouping.answered(call, answers, now)
            return final + (self._abandoned() if self._is_closed else self._send_what_is_ready(now))

    def _abandoned(self) -> Answers:
        return self._grouping.abandoned(StoreUnavailable("this process ends"))

    def _keep_lookout(self, now: float) -> None:
        """See to it that the lookout looks in time."""
        if self._lookout is None or not self._lookout.is_alive():
            lookout = Thread(target=self._look_in_time, name="lookout", daemon=True)
            lookout.start()
            self._lookout = lookout
        elif (at := self._grouping.look_at(now)) is not None and at < self._looks_at:
            self._changing.notify()

    def _look_in_time(self) -> None:
        """Be the lookout: send what has waited long enough, and answer those whose time is over."""
        while True:
            with self._changing:
                if self._is_closed:
                    return
                now = time.monotonic()
                at = self._grouping.look_at(now)
                self._looks_at = inf if at is None else at
                self._changing.wait(None if at is None else max(0.0, at - now))
                now = time.monotonic()
                answers = self._grouping.expired(now) + self._send_what_is_ready(now)
            _answer(answers)


def _all_get(requests: Iterable[Request], why: str) -> Answers:
    return [answer for request in requests for answer in request.all_get(StoreUnavailable(why))]


def _fit(answers: Sequence[Any], call: Call) -> bool:
    """Whether each item has an answer, and one that can be read."""
    return len(answers) == len(call.items) and all(isinstance(one, dict) and "outcome" in one for one in answers)


def _answer(answers: Answers) -> None:
    """Give the answers to who still waits for them."""
    for future, answer in answers:
        with suppress(InvalidStateError):  # cancelled, or its time is over
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
