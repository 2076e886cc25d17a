"""Who is woken: one dispatcher listens for all kinds that have room, and keeps no token that another could use."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID

import fakeredis
import pytest

from onelane import keys
from onelane.lanes.lanes import Lanes
from onelane.processes import bell
from onelane.processes.bell import Bell
from tests.conftest import DEADLINE_S, eventually

ALICE = UUID(int=3)


class Worker:
    """The dispatchers of a worker, as far as they wait."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.client = fakeredis.FakeRedis()
        self.lanes = {kind: Lanes(self.client, kind) for kind in keys.KINDS}
        self.has_room = dict.fromkeys(keys.KINDS, True)
        self.bell = Bell(list(self.lanes.values()), self.has_room.__getitem__)
        self.listened: list[frozenset[str]] = []
        self.listeners: list[str] = []
        """Whose dispatchers listened."""
        self._threads = threads
        listen = self.bell._listen

        def noted(kinds: frozenset[str], within_s: float) -> None:
            self.listened.append(kinds)
            self.listeners.append(threading.current_thread().name)
            listen(kinds, within_s)

        self.bell._listen = noted  # type: ignore[method-assign]

    def wait(self, kind: str, within_s: float = DEADLINE_S) -> Future[bool]:
        return self._threads.submit(self._waits, kind, within_s)

    def _waits(self, kind: str, within_s: float) -> bool:
        threading.current_thread().name = kind
        return self.bell.wait(kind, within_s)

    def enqueue(self, kind: str) -> None:
        self.lanes[kind].enqueue(ALICE, ALICE)

    def tokens(self, kind: str) -> int:
        return int(self.client.llen(keys.wake(kind)))


@pytest.fixture
def worker() -> Iterator[Worker]:
    with ThreadPoolExecutor() as threads:
        yield Worker(threads)


def test_a_wait_of_a_millisecond_is_not_one_for_ever(worker: Worker) -> None:
    for seconds in (0.0001, 0.0009, 0.001, 0.0015):
        assert worker.wait(keys.IN, seconds).result(DEADLINE_S) is False


@pytest.mark.parametrize("kind", keys.KINDS)
def test_whoever_listens_hears_of_every_kind_and_the_other_takes_its_place(worker: Worker, kind: str) -> None:
    waiting = {one: worker.wait(one) for one in keys.KINDS}
    eventually(lambda: worker.listened)
    worker.enqueue(kind)
    assert waiting.pop(kind).result(DEADLINE_S) is True
    [(other, still)] = waiting.items()
    worker.enqueue(other)
    assert still.result(DEADLINE_S) is True
    assert set(worker.listened) == {frozenset(keys.KINDS)}, "one connection for both"


def test_the_dispatcher_of_turns_listens_itself_as_soon_as_it_can(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = worker.wait(keys.OUT)
    eventually(lambda: worker.listeners == [keys.OUT])
    monkeypatch.setattr(bell, "HANDED_OVER_S", DEADLINE_S)
    worker.enqueue(keys.IN)
    assert worker.wait(keys.IN).result(DEADLINE_S) is True
    turns = worker.wait(keys.IN)
    eventually(lambda: len(worker.listeners) > 1)
    assert worker.listeners == [keys.OUT, keys.IN]
    for kind, woken in ((keys.OUT, out), (keys.IN, turns)):  # by the second the dispatcher of turns listens no more
        worker.lanes[kind].pass_wake_on()
        assert woken.result(DEADLINE_S) is True


def test_a_kind_that_became_due_while_its_dispatcher_was_at_work_is_not_waited_for(worker: Worker) -> None:
    listener = worker.wait(keys.IN)
    eventually(lambda: worker.listened)
    worker.enqueue(keys.OUT)
    eventually(lambda: worker.tokens(keys.OUT) == 0)
    assert worker.wait(keys.OUT).result(DEADLINE_S) is True
    worker.enqueue(keys.IN)
    assert listener.result(DEADLINE_S) is True


def test_the_tokens_of_a_kind_whose_places_are_taken_are_left_to_other_workers(worker: Worker) -> None:
    worker.has_room[keys.OUT] = False
    listener = worker.wait(keys.IN)
    eventually(lambda: worker.listened)
    worker.enqueue(keys.OUT)
    worker.enqueue(keys.IN)
    assert listener.result(DEADLINE_S) is True
    assert worker.tokens(keys.OUT) == 1


def test_a_token_that_came_when_the_places_were_just_taken_is_passed_on(worker: Worker) -> None:
    listener = worker.wait(keys.IN)
    eventually(lambda: worker.listened)
    worker.has_room[keys.OUT] = False
    worker.enqueue(keys.OUT)
    worker.enqueue(keys.IN)
    assert listener.result(DEADLINE_S) is True
    eventually(lambda: worker.tokens(keys.OUT) == 1)
    worker.has_room[keys.OUT] = True
    assert worker.wait(keys.OUT).result(DEADLINE_S) is True
    assert worker.tokens(keys.OUT) == 0


def test_a_kind_to_which_nobody_listens_looks_by_itself_soon(worker: Worker) -> None:
    looks_anew, take = threading.Event(), worker.bell._take_token

    def looks(kinds: frozenset[str], within_s: float) -> str | None:
        if worker.listened:
            assert looks_anew.wait(DEADLINE_S)
        return take(kinds, within_s)

    worker.bell._take_token = looks  # type: ignore[method-assign]
    worker.has_room[keys.OUT] = False
    listener = worker.wait(keys.IN)
    eventually(lambda: worker.listened)
    worker.has_room[keys.OUT] = True
    began = time.monotonic()
    assert worker.wait(keys.OUT).result(DEADLINE_S) is False
    assert time.monotonic() - began < DEADLINE_S / 2
    looks_anew.set()
    worker.enqueue(keys.IN)
    assert listener.result(DEADLINE_S) is True


def test_a_kind_that_has_room_again_is_listened_to_soon(worker: Worker) -> None:
    worker.has_room[keys.IN] = False
    listener = worker.wait(keys.OUT)
    eventually(lambda: worker.listened[:1] == [frozenset({keys.OUT})])
    worker.has_room[keys.IN] = True
    eventually(lambda: frozenset(keys.KINDS) in worker.listened)
    worker.enqueue(keys.OUT)
    assert listener.result(DEADLINE_S) is True


def test_who_cannot_listen_leaves_it_to_another(worker: Worker) -> None:
    heard = threading.Event()
    take = worker.bell._take_token

    def fails_once(kinds: frozenset[str], within_s: float) -> str | None:
        if not heard.is_set():
            heard.set()
            raise ConnectionError
        return take(kinds, within_s)

    worker.bell._take_token = fails_once  # type: ignore[method-assign]
    first, second = worker.wait(keys.IN), worker.wait(keys.IN)
    worker.enqueue(keys.IN)
    answers = [one.exception(DEADLINE_S) or one.result() for one in (first, second)]
    assert {type(answer) for answer in answers} == {ConnectionError, bool}
