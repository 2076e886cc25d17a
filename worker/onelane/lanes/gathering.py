"""What many ask at once goes in one round trip.

A worker has hundreds of slots and a few connections. Would each slot wait for one of its own, releases would queue, one
round trip behind the other, and of a slow Redis the last would give up. Alone, a call leaves at once.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from onelane.errors import LanesUnavailable

Call = tuple[str, Sequence[Any]]
"""A script's name and its arguments."""
GATHERED_MAX: Final = 256
"""Calls in one round trip."""
ANSWER_MAX_S: Final = 40.0
"""Longer than the round trips before a call's own may take, of a Redis that is silent: then nobody sends any more."""

Read = TypeVar("Read")
Owner = TypeVar("Owner")
Given = ParamSpec("Given")


class Gathering:
    """One round trip at a time: whoever makes the next takes along all that has gathered meanwhile."""

    def __init__(self, send: Callable[[Sequence[Call]], list[Any]]) -> None:
        """`send` answers each call, by its answer or its error; what it raises is the answer to all."""
        self._send = send
        self._waiting: deque[tuple[Call, Future[Any], Callable[[Any], Any]]] = deque()
        """Everybody adds their own; only the thread that sends takes out."""
        self._sending = threading.Lock()
        """Held over a round trip."""
        self._has_more = threading.Event()
        self._sender: threading.Thread | None = None
        self._starting = threading.Lock()
        """Guards the start of the sender: one is enough."""

    def ask(self, call: Call) -> Any:
        """Return the answer to `call`, or raise it."""
        [answer] = self.ask_all([call])
        return awaited(answer)

    def ask_all(self, calls: Sequence[Call]) -> list[Future[Any]]:
        """Ask for several. The thread that asks sends them itself, unless another sends just now."""
        answers = [self._add(call, _as_it_is) for call in calls]
        if self._sending.acquire(blocking=False):
            try:
                while not all(answer.done() for answer in answers):
                    self._send_oldest()
            finally:
                self._sending.release()
                self._leave_to_sender()
        return answers

    def submit(self, call: Call, read: Callable[[Any], Read]) -> Future[Read]:
        """Send `call` as soon as may be, for what `read` makes of its answer; never waits."""
        answer = self._add(call, read)
        self._leave_to_sender()
        return answer

    def _leave_to_sender(self) -> None:
        """Let the sender send what waits.

        Who has sent calls it after that: what came meanwhile found somebody sending, and relied on it.
        """
        if self._waiting:
            try:
                if self._sender is None or not self._sender.is_alive():
                    self._start_sender()
            except RuntimeError:
                self._refuse_what_waits(LanesUnavailable("no thread to ask Redis"))
            self._has_more.set()

    def _refuse_what_waits(self, error: LanesUnavailable) -> None:
        """Answer all that waits, unless somebody sends, who comes here after that."""
        while self._waiting and self._sending.acquire(blocking=False):
            try:
                while self._waiting:
                    _, future, read = self._waiting.popleft()
                    _settle(future, error, read)
            finally:
                self._sending.release()

    def _add(self, call: Call, read: Callable[[Any], Read]) -> Future[Read]:
        answer: Future[Read] = Future()
        self._waiting.append((call, answer, read))
        return answer

    def _start_sender(self) -> None:
        with self._starting:
            if self._sender is None or not self._sender.is_alive():
                self._sender = threading.Thread(target=self._send_on, name="lanes", daemon=True)
                self._sender.start()

    def _send_on(self) -> None:
        """Send what is submitted, until the process ends."""
        while self._has_more.wait():
            self._has_more.clear()
            with self._sending:
                while self._waiting:
                    self._send_oldest()
            self._leave_to_sender()

    def _send_oldest(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), GATHERED_MAX))]
        answers: list[Any] = len(batch) * [LanesUnavailable("the thread that asked was interrupted")]
        try:
            answers = self._send([call for call, _, _ in batch])
        except Exception as error:  # noqa: BLE001 - each of those who asked raises it
            answers = len(batch) * [error]
        finally:
            for (_, future, read), answer in zip(batch, answers, strict=True):
                _settle(future, answer, read)


def _settle(future: Future[Any], answer: Any, read: Callable[[Any], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = answer if isinstance(answer, Exception) else read(answer)
    except Exception as error:  # noqa: BLE001 - whoever waits for it raises it
        result = error
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _as_it_is(answer: Any) -> Any:
    return answer


def awaited(answer: Future[Read]) -> Read:
    """Wait for an answer and return it, or raise it."""
    try:
        return answer.result(ANSWER_MAX_S)
    except TimeoutError:
        raise LanesUnavailable("nobody sends what is asked of Redis") from None


def waiting(soon: Callable[Concatenate[Owner, Given], Future[Read]]) -> Callable[Concatenate[Owner, Given], Read]:
    """Make of a method that never waits one that waits for its answer, for threads of their own."""

    @wraps(soon)
    def wait(self: Owner, /, *args: Given.args, **kwargs: Given.kwargs) -> Read:
        answer: Future[Read] = getattr(self, soon.__name__)(*args, **kwargs)
        return awaited(answer)

    return wait
