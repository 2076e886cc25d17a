"""What threads and coroutines ask at once goes in few lists, everybody gets an answer, and idle threads do nothing."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

import pytest

from onelane import forks
from onelane.errors import StoreAway, StoreUnavailable
from onelane.gathering import Gatherer, gatherer
from onelane.model import JsonObject
from tests.conftest import DEADLINE_S, eventually

USERS = 20
FIRST = {"nr": -1}


class Server:
    """Answers each item with its number, once it is let go."""

    def __init__(self) -> None:
        self.lists: list[int] = []
        self.goes_on = threading.Event()
        self.error: Exception | None = None

    def __call__(self, items: Sequence[JsonObject], waits: bool) -> list[JsonObject]:
        self.lists.append(len(items))
        assert self.goes_on.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        return [{"outcome": "done", **item} for item in items]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def gathering(server: Server) -> Iterator[Gatherer]:
    gathering = Gatherer(server, at_once=1)
    yield gathering
    server.goes_on.set()
    gathering.close()


def asked(gathering: Gatherer, server: Server, numbers: Sequence[int] = range(USERS)) -> list[Any]:
    """Ask for one item, and while that is under way for others."""
    first = gathering.submit(FIRST, "first")
    eventually(lambda: server.lists)
    return [first, *(gathering.submit({"nr": nr}, str(nr)) for nr in numbers)]


def test_what_gathers_while_a_list_is_under_way_goes_with_the_next(gathering: Gatherer, server: Server) -> None:
    futures = asked(gathering, server)
    server.goes_on.set()
    assert [future.result(DEADLINE_S)["nr"] for future in futures] == [-1, *range(USERS)]
    assert server.lists == [1, USERS]


def test_what_one_request_of_several_users_asks_leaves_in_one_list(gathering: Gatherer, server: Server) -> None:
    server.goes_on.set()
    futures = gathering.submit_all([({"nr": nr}, str(nr % 3)) for nr in range(USERS)])
    assert [future.result(DEADLINE_S)["nr"] for future in futures] == list(range(USERS))
    assert server.lists == [USERS]


def test_threads_and_coroutines_share_lists(gathering: Gatherer, server: Server) -> None:
    async def ask_all() -> list[int]:
        futures = [asyncio.wrap_future(gathering.submit({"nr": nr}, str(nr))) for nr in range(USERS)]
        return [answer["nr"] for answer in await asyncio.gather(*futures)]

    first = gathering.submit(FIRST, "first")
    eventually(lambda: server.lists)
    with ThreadPoolExecutor(2) as threads:
        ours = threads.submit(gathering.ask, {"nr": 99}, "99")
        theirs = threads.submit(asyncio.run, ask_all())
        eventually(lambda: len(gathering._grouping._waiting) == USERS + 1)
        server.goes_on.set()
        assert ours.result(DEADLINE_S)["nr"] == 99
        assert theirs.result(DEADLINE_S) == list(range(USERS))
    assert first.result(DEADLINE_S)["nr"] == -1
    assert server.lists == [1, USERS + 1]


def test_a_second_list_leaves_while_the_first_hangs(server: Server) -> None:
    gathering = Gatherer(server, at_once=4)
    futures = asked(gathering, server, []) + gathering.submit_all([({"nr": nr}, str(nr)) for nr in (1, 2)])
    eventually(lambda: server.lists == [1, 2])
    server.goes_on.set()
    assert [future.result(DEADLINE_S)["nr"] for future in futures] == [-1, 1, 2]
    gathering.close()


def test_who_waits_too_long_is_answered_while_the_call_hangs(
    gathering: Gatherer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatherer, "DEADLINE_S", 0.05)
    for future in asked(gathering, server, [1]):
        assert isinstance(future.exception(DEADLINE_S), StoreUnavailable)


def test_an_outage_is_the_answer_to_all_and_the_next_call_is_made(gathering: Gatherer, server: Server) -> None:
    server.error = StoreAway("away")
    futures = asked(gathering, server, [1, 2])
    server.goes_on.set()
    assert [future.exception(DEADLINE_S) for future in futures] == [server.error] * 3
    server.error = None
    assert gathering.ask({"nr": 1}, "1")["nr"] == 1


@pytest.mark.parametrize("answers", [[], [None], [{"user_id": "u"}]], ids=str)
def test_answers_that_do_not_fit_are_an_outage_and_the_next_call_is_made(answers: list[Any]) -> None:
    """The thread that met one died, and the users of its list were never asked for again."""
    gathering = Gatherer(lambda items, waits: answers)
    with pytest.raises(StoreUnavailable):
        gathering.submit({}, "alice").result(DEADLINE_S)
    answers[:] = [{"outcome": "done"}]
    assert gathering.submit({}, "alice").result(DEADLINE_S) == {"outcome": "done"}
    gathering.close()


def test_who_gets_an_answer_may_ask_again_at_once(gathering: Gatherer, server: Server) -> None:
    server.goes_on.set()
    again: list[Any] = []
    gathering.submit(FIRST, "alice").add_done_callback(lambda _: again.append(gathering.submit({"nr": 1}, "alice")))
    eventually(lambda: again and again[0].done())
    assert again[0].result()["nr"] == 1


def test_one_who_has_given_up_keeps_nobody_from_an_answer(gathering: Gatherer, server: Server) -> None:
    first, second, third = asked(gathering, server, [1, 2])
    assert first.cancel()
    assert second.cancel()
    server.goes_on.set()
    assert third.result(DEADLINE_S)["nr"] == 2
    assert server.lists == [1, 1]


def test_a_closed_gatherer_answers_everybody_and_ends_its_threads(server: Server) -> None:
    before = set(threading.enumerate())
    gathering = Gatherer(server, at_once=1)
    under_way, waiting = asked(gathering, server, [1])
    gathering.close()
    assert isinstance(waiting.exception(0), StoreUnavailable)
    assert isinstance(gathering.submit({}, "late").exception(0), StoreUnavailable)
    server.goes_on.set()
    assert under_way.result(DEADLINE_S)["nr"] == -1
    eventually(lambda: set(threading.enumerate()) <= before)


def test_a_forked_child_is_refused(gathering: Gatherer, monkeypatch: pytest.MonkeyPatch) -> None:
    with gathering._changing:  # as a thread that the child has not may hold it for ever
        monkeypatch.setattr(forks, "is_child", lambda: True)
        assert isinstance(gathering.submit({}, "alice").exception(0), StoreUnavailable)


class Threadless(threading.Thread):
    """A thread that cannot be had."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("lacks", ["sender", "lookout"])
def test_without_a_thread_everybody_is_answered(
    lacks: str, gathering: Gatherer, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    def thread(name: str, **kwargs: Any) -> threading.Thread:
        return (Threadless if name == lacks else threading.Thread)(name=name, **kwargs)

    server.goes_on.set()
    with monkeypatch.context() as without:
        without.setattr(gatherer, "Thread", thread)
        for future in (gathering.submit({"nr": 1}, "1"), gathering.submit({"nr": 2}, "1")):
            assert future.exception(DEADLINE_S) is None or isinstance(future.exception(), StoreUnavailable)
    assert gathering.ask({"nr": 3}, "3")["nr"] == 3


def test_while_nobody_asks_nothing_is_looked_at(
    gathering: Gatherer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.goes_on.set()
    monkeypatch.setattr(gatherer, "DEADLINE_S", 0.01)
    gathering.submit({"nr": 1}, "1").exception(DEADLINE_S)
    eventually(lambda: gathering._looks_at == inf)
