"""A Redis that is slow keeps no web's threads: one waits for it, and takes along what the others left."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from onelane.lanes import enqueueing
from onelane.lanes.enqueueing import Enqueueing
from onelane.lanes.lanes import MANY_MAX
from tests.conftest import DEADLINE_S, eventually

ALWAYS, NEVER = -1.0, 3_600.0
"""What counts as slow: every call, or none."""


class HeldLanes:
    """Lanes whose calls wait until they may go on."""

    def __init__(self) -> None:
        self.asked: list[list[Any]] = []
        self.enqueued: list[Any] = []
        self.may_go_on = threading.Event()

    def enqueue_many(self, messages: Sequence[Any]) -> None:
        """Take messages, when that is allowed."""
        self.asked.append(list(messages))
        assert self.may_go_on.wait(DEADLINE_S)
        self.enqueued += messages


@pytest.fixture
def lanes() -> HeldLanes:
    return HeldLanes()


@pytest.fixture
def threads(lanes: HeldLanes) -> Iterator[ThreadPoolExecutor]:
    """A web's."""
    with ThreadPoolExecutor(4) as threads:
        yield threads
        lanes.may_go_on.set()


def opened(lanes: Any, monkeypatch: pytest.MonkeyPatch, slow_s: float) -> Any:
    monkeypatch.setattr(enqueueing, "SLOW_S", slow_s)
    return Enqueueing(lanes)


def held_in_a_slow_call(lanes: HeldLanes, threads: ThreadPoolExecutor, requests: Any) -> Future[None]:
    """Let a call be slow, and another wait for Redis."""
    lanes.may_go_on.set()
    requests.enqueue([0])
    lanes.may_go_on.clear()
    first = threads.submit(requests.enqueue, ["first"])
    eventually(lambda: lanes.asked == [[0], ["first"]])
    return first


def test_beside_a_slow_call_nobody_waits_and_all_go_with_the_next(
    lanes: HeldLanes, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = opened(lanes, monkeypatch, ALWAYS)
    first = held_in_a_slow_call(lanes, threads, requests)
    for number in (1, 2, 3):
        requests.enqueue([number])
    assert lanes.enqueued == [0]
    lanes.may_go_on.set()
    first.result(DEADLINE_S)
    assert lanes.asked == [[0], ["first"], [1, 2, 3]]


def test_what_is_too_much_for_one_call_is_left_to_the_thread_for_it(
    lanes: HeldLanes, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = opened(lanes, monkeypatch, ALWAYS)
    first = held_in_a_slow_call(lanes, threads, requests)
    requests.enqueue(list(range(1, MANY_MAX + 3)))
    lanes.may_go_on.set()
    first.result(DEADLINE_S)
    assert lanes.enqueued == [0, "first", *range(1, MANY_MAX + 1)]
    requests.enqueue_postponed()
    assert lanes.enqueued[-2:] == [MANY_MAX + 1, MANY_MAX + 2]


def test_beside_a_quick_call_everybody_makes_their_own(
    lanes: HeldLanes, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = opened(lanes, monkeypatch, NEVER)
    for number in range(4):
        threads.submit(requests.enqueue, [number])
    eventually(lambda: sorted(lanes.asked) == [[0], [1], [2], [3]])


def test_nothing_is_asked_when_the_time_is_over_and_it_goes_later(
    lanes: HeldLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes.may_go_on.set()
    requests = opened(lanes, monkeypatch, NEVER)
    requests.enqueue([1], ends=time.monotonic() - 1)
    assert lanes.asked == []
    requests.enqueue_postponed()
    assert lanes.enqueued == [1]


def test_what_was_left_goes_with_the_next_that_comes(lanes: HeldLanes, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes.may_go_on.set()
    requests = opened(lanes, monkeypatch, NEVER)
    requests.enqueue([1], ends=time.monotonic() - 1)
    requests.enqueue([2])
    assert lanes.asked == [[2], [1]]
