"""What many threads ask at once goes in one round trip, and each gets its own answer."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import fakeredis
import pytest
import redis

from onelane.errors import LanesUnavailable
from onelane.lanes import gathering
from onelane.lanes.gathering import Call, Gathering, waiting
from onelane.lanes.scripts import SCRIPTS, Scripts
from tests.conftest import DEADLINE_S, eventually

THREADS = 20


class Server:
    """Answers each call with its name, but the first round trip only when it is let go."""

    def __init__(self) -> None:
        self.round_trips: list[list[str]] = []
        self.goes_on = threading.Event()
        self.error: Exception | None = None

    def __call__(self, calls: Sequence[Call]) -> list[Any]:
        self.round_trips.append([name for name, _ in calls])
        assert self.goes_on.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        return [ValueError(name) if name == "bad" else name for name, _ in calls]


def _asked_while_one_is_under_way(server: Server, names: Sequence[str]) -> list[Future[Any]]:
    gathering = Gathering(server)
    with ThreadPoolExecutor(len(names) + 1) as threads:
        first = threads.submit(gathering.ask, ("first", ()))
        eventually(lambda: server.round_trips)
        others = [threads.submit(gathering.ask, (name, ())) for name in names]
        eventually(lambda: len(gathering._waiting) == len(names))
        server.goes_on.set()
        return [first, *others]


def test_what_gathers_during_a_round_trip_goes_with_the_next() -> None:
    server, names = Server(), [str(nr) for nr in range(THREADS)]
    asked = _asked_while_one_is_under_way(server, names)
    assert [one.result() for one in asked] == ["first", *names]
    assert [len(sent) for sent in server.round_trips] == [1, THREADS]


def test_more_than_fits_goes_with_the_one_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "GATHERED_MAX", THREADS - 1)
    server = Server()
    _asked_while_one_is_under_way(server, [str(nr) for nr in range(THREADS)])
    assert [len(sent) for sent in server.round_trips] == [1, THREADS - 1, 1]


def test_the_error_of_one_call_is_its_own_and_an_outage_everybodys() -> None:
    server = Server()
    _, good, bad = _asked_while_one_is_under_way(server, ["good", "bad"])
    assert good.result() == "good"
    assert isinstance(bad.exception(), ValueError)

    server = Server()
    server.error = LanesUnavailable("away")
    asked = _asked_while_one_is_under_way(server, ["good", "bad"])
    assert [one.exception() for one in asked] == 3 * [server.error]


def test_a_thread_that_is_interrupted_leaves_nobody_waiting() -> None:
    gathering = Gathering(_interrupted)
    with pytest.raises(KeyboardInterrupt):
        gathering.ask(("first", ()))
    assert not gathering._sending.locked()


def _interrupted(calls: Sequence[Call]) -> list[Any]:
    raise KeyboardInterrupt


def test_what_a_full_redis_refuses_to_one_it_may_do_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = Scripts(fakeredis.FakeRedis(), SCRIPTS)
    refusal = redis.exceptions.OutOfMemoryError("OOM command not allowed")
    monkeypatch.setattr(scripts, "_execute", lambda calls: [refusal if name == "enqueue" else 1 for name, _ in calls])
    refused, done = scripts._run_gathered([("enqueue", ()), ("finish", ())])
    assert isinstance(refused, LanesUnavailable)
    assert done == 1


def test_where_the_system_gives_no_thread_it_is_an_outage_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gathering = Gathering(lambda calls: [name for name, _ in calls])
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(LanesUnavailable, match="no thread to ask Redis"):
        gathering.submit(("first", ()), str).result(0)
    assert gathering.ask(("second", ())) == "second"
    monkeypatch.undo()
    assert gathering.submit(("third", ()), str).result(DEADLINE_S) == "third"


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_sender_that_died_is_replaced_and_who_waits_for_what_it_took_has_a_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def send(calls: Sequence[Call]) -> list[Any]:
        return [] if calls[0][0] == "bad" else [name for name, _ in calls]  # no answer: that cannot be

    class Owner:
        gathering = Gathering(send)

        def ask_soon(self, name: str) -> Future[Any]:
            return self.gathering.submit((name, ()), str)

        ask = waiting(ask_soon)

    monkeypatch.setattr(gathering, "ANSWER_MAX_S", 0.1)
    owner = Owner()
    with pytest.raises(LanesUnavailable):
        owner.ask("bad")
    monkeypatch.setattr(gathering, "ANSWER_MAX_S", DEADLINE_S)
    eventually(lambda: not owner.gathering._sender or not owner.gathering._sender.is_alive())
    assert owner.ask("good") == "good"
